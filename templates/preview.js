"use strict";
// A frame cannot take the height of its mail by itself. Mails are drawn at their own width and made smaller where the
// window is narrower, as a picture of a screen would be.
const most = Number(document.body.dataset.most);
function fit(frame) {
  const root = frame.contentDocument && frame.contentDocument.documentElement;
  const width = Number(frame.dataset.width);
  const box = frame.parentElement;
  if (!root || !box.clientWidth) return;
  const scale = Math.min(1, box.clientWidth / width);
  // Its width first: the height follows from it. Without a height of its own a mail says how high it is.
  frame.style.width = `${Math.max(width, box.clientWidth)}px`;
  frame.style.height = "0";
  const height = Math.min(root.scrollHeight, most);
  frame.style.height = `${height}px`;
  frame.style.transform = scale < 1 ? `scale(${scale})` : "none";
  box.style.height = `${Math.ceil(height * scale)}px`;
}
const frames = [...document.querySelectorAll("iframe")];
const fitAll = () => frames.forEach(fit);
for (const frame of frames) frame.addEventListener("load", () => fit(frame));
addEventListener("load", () => {
  fitAll();
  // Until now the frames had no height of their own, so that the address led to another place.
  const target = document.getElementById(location.hash.slice(1));
  if (target) target.scrollIntoView({ behavior: "instant" });
});
addEventListener("resize", fitAll);
addEventListener("change", fitAll);
// The case that is looked at is marked in the navigation.
const links = new Map([...document.querySelectorAll("nav a[href^='#']")].map((link) => [link.hash.slice(1), link]));
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  },
  { rootMargin: "-20% 0px -75% 0px" },
);
for (const id of links.keys()) {
  const section = document.getElementById(id);
  if (section) watcher.observe(section);
}
