// The pointer's cross-hair: the page is complete without it. All charts along the time move together.
"use strict";
(() => {
  const digits = (value) => value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
  const show = {
    ms: (value) => value < 999.5 ? `${digits(value)} ms` : `${digits(value / 1000)} s`,
    rate: (value) => `${digits(value)}/s`,
    count: (value) => Math.round(value).toLocaleString("en"),
    cores: (value) => value.toFixed(2),
    mb: (value) => `${Math.round(value).toLocaleString("en")} MB`,
  };
  const FULL = 10000;
  const make = (tag, name, parent) => {
    const element = document.createElement(tag);
    element.className = name;
    return parent.appendChild(element);
  };
  const nearest = (places, place) => {
    let low = 0, high = places.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (places[middle] < place) low = middle + 1; else high = middle;
    }
    return low > 0 && place - places[low - 1] < places[low] - place ? low - 1 : low;
  };

  const charts = [...document.querySelectorAll(".plot")].map((plot) => {
    const data = JSON.parse(plot.querySelector("script").textContent);
    const cross = make("div", "cross", plot);
    const tip = make("div", "tip", plot);
    const hit = make("div", "hit", plot);  // lies on top, so that the browser's own tooltip of <title> stays away
    cross.hidden = tip.hidden = true;
    hit.tabIndex = 0;
    hit.setAttribute("role", "slider");
    hit.setAttribute("aria-label", plot.querySelector("title").textContent);
    return { data, cross, tip, hit, shared: Boolean(data.places), at: 0 };
  });

  const placesOf = ({ data }) => data.places || data.series[0].places;

  const point = (chart, place, told) => {
    const { data, cross, tip, hit } = chart;
    chart.at = nearest(placesOf(chart), place);
    const x = placesOf(chart)[chart.at];
    cross.style.left = `${x / (FULL / 100)}%`;
    cross.hidden = false;
    tip.hidden = !told;
    if (!told) return;
    tip.replaceChildren();
    make("b", "", tip).textContent = (data.labels || data.series[0].labels)[chart.at];
    for (const series of data.series) {
      const value = series.values[series.places ? nearest(series.places, x) : chart.at];
      const row = make("span", "", tip);
      make("i", series.colour, row).textContent = series.name;
      make("em", "", row).textContent = value === null ? "–" : show[data.unit](value);
    }
    hit.setAttribute("aria-valuenow", chart.at);
    hit.setAttribute("aria-valuemax", placesOf(chart).length - 1);
    hit.setAttribute("aria-valuetext", [...tip.children].map((row) => [...row.childNodes].map((part) => part.textContent).join(" ")).join(", "));
    const room = hit.clientWidth, width = tip.offsetWidth, left = x / FULL * room;
    tip.style.left = `${Math.max(-40, left + 14 + width > room ? left - 14 - width : left + 14)}px`;
  };
  const pointAll = (chart, place) => {
    for (const other of charts) if (other === chart || (chart.shared && other.shared)) point(other, place, other === chart);
  };
  const leave = () => {
    for (const { cross, tip } of charts) cross.hidden = tip.hidden = true;
  };

  for (const chart of charts) {
    const { hit } = chart;
    hit.addEventListener("pointermove", (event) => {
      const box = hit.getBoundingClientRect();
      pointAll(chart, (event.clientX - box.left) / box.width * FULL);
    });
    hit.addEventListener("pointerleave", leave);
    hit.addEventListener("blur", leave);
    hit.addEventListener("keydown", (event) => {
      const last = placesOf(chart).length - 1;
      const goal = { ArrowLeft: chart.at - 1, ArrowRight: chart.at + 1, Home: 0, End: last }[event.key];
      if (goal === undefined) return;
      event.preventDefault();
      pointAll(chart, placesOf(chart)[Math.min(last, Math.max(0, goal))]);
    });
  }
})();
