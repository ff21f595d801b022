-- Where a recipient is found by its openid, for what providers tell about people and not about messages. Not an index:
-- openids come in no order, and every import would write most of its pages (three times the time, measured). Rows come
-- in sorted, many at a time; recipients above `up_to` are not in it yet. A row may be out of date: the card has the word.
CREATE TABLE openids (
    digest    INTEGER NOT NULL,               -- CRC-32 of the openid
    recipient INTEGER NOT NULL,
    PRIMARY KEY (digest, recipient)
) STRICT, WITHOUT ROWID;
CREATE TABLE openids_known (
    up_to INTEGER NOT NULL
) STRICT;
INSERT INTO openids SELECT crc32(card->>3), id FROM recipients WHERE card->>3 IS NOT NULL ORDER BY 1, 2;
INSERT INTO openids_known SELECT coalesce(max(id), 0) FROM recipients;
