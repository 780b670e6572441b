"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  let lastId = 0;

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in element) element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function menu(words, choices, changed) {
    const id = `menu-${lastId++}`;
    const select = make("select", { id }, ...choices.map((choice) => make("option", {}, choice)));
    select.addEventListener("change", changed);
    return [make("label", { htmlFor: id }, words), select];
  }

  // Plots

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Black curves become light on a dark page.
  const themed = (value) =>
    dark.matches ? JSON.parse(JSON.stringify(value).replaceAll('"#000000"', '"#e4e7ea"')) : value;
  const colourOf = (trace) => trace.marker?.color ?? trace.line?.color;

  function layoutOf(plot) {
    const line = colour("--line");
    const layout = {
      height: 320,
      margin: { l: 62, r: 12, t: 10, b: 48 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--ink"), size: 12 },
      showlegend: false,
      hovermode: "closest",
      dragmode: touch.matches ? false : "zoom", // a finger scrolls the page
      ...themed(plot.layout),
    };
    for (const name of Object.keys(layout)) {
      if (!/^[xy]axis\d*$/.test(name)) continue;
      const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
      layout[name] = { ...axis, ...layout[name] };
    }
    return layout;
  }

  function plots(place, { menu: words, choices }) {
    const names = Object.keys(choices);
    const hidden = new Set();
    const legend = make("div", { className: "bar legend" });
    const panels = make("div", { className: "panels" });
    const [label, select] = menu(words, names, draw);
    if (names.length > 1) place.append(make("div", { className: "bar" }, label, select));
    place.append(legend, panels);
    for (const _ of choices[names[0]]) {
      const drawing = make("div", { role: "img" });
      panels.append(make("figure", {}, make("h3"), drawing, make("figcaption")));
    }

    function draw() {
      const shown = choices[select.value];
      const traces = new Map();
      const all = shown.flatMap((plot) => plot.traces);
      for (const trace of all.sort((a, b) => (a.legendrank ?? 0) - (b.legendrank ?? 0))) {
        if (!traces.has(trace.name)) traces.set(trace.name, colourOf(themed(trace)));
      }
      legend.replaceChildren(
        ...[...traces].map(([name, tint]) => {
          const box = make("input", { type: "checkbox", checked: !hidden.has(name) });
          box.addEventListener("change", () => {
            if (box.checked) hidden.delete(name);
            else hidden.add(name);
            drawPanels(shown);
          });
          const swatch = make("span", { className: "swatch" });
          swatch.style.background = tint;
          return make("label", {}, box, swatch, name);
        }),
      );
      drawPanels(shown);
    }

    function drawPanels(shown) {
      shown.forEach((plot, number) => {
        const [title, drawing, caption] = panels.children[number].children;
        const clip = names.length > 1 ? `${select.value}: ` : "";
        title.textContent = plot.title;
        caption.textContent = plot.caption;
        drawing.setAttribute("aria-label", `${clip}${plot.title}. ${plot.caption}`);
        const traces = plot.traces.filter((trace) => !hidden.has(trace.name));
        Plotly.react(drawing, themed(traces), layoutOf(plot), {
          responsive: true,
          displayModeBar: false, // it covers the plot, and offers to upload the data
        });
      });
    }

    draw();
    dark.addEventListener("change", draw);
  }

  // The viewer

  function viewer(place, clips) {
    let clip = clips[0];
    let frame = 0; // which of the clip's pictures
    let alone = null; // which stream, where there is one at a time
    const status = make("span", { role: "status" });
    const stage = make("div", { className: "stage" });
    const [label, select] = menu("Clip", clips.map((one) => one.clip), () => {
      clip = clips[select.selectedIndex];
      frame = Math.min(frame, clip.frames.length - 1);
      fill();
    });
    const button = (words, act) => {
      const one = make("button", { type: "button" }, words);
      one.addEventListener("click", () => {
        act();
        show();
      });
      return one;
    };
    const step = (count) => {
      frame = Math.min(Math.max(frame + count, 0), clip.frames.length - 1);
    };
    const flip = () => {
      alone = alone === null ? 0 : (alone + 1) % clip.streams.length;
    };
    const side = button("side by side", () => (alone = null));
    const next = button("flip streams", flip);
    const keys = make("p", { id: "viewer-keys" });
    keys.innerHTML =
      "Keys: <kbd>←</kbd> <kbd>→</kbd> previous and next frame, <kbd>Home</kbd> <kbd>End</kbd> " +
      "first and last, <kbd>T</kbd> flip to the next stream in the same place, " +
      "<kbd>1</kbd> <kbd>2</kbd> <kbd>3</kbd> one stream alone, <kbd>S</kbd> side by side.";
    place.append(
      make("div", { className: "bar" }, label, select),
      make(
        "div",
        { className: "bar" },
        button("← previous", () => step(-1)),
        button("next →", () => step(1)),
        next,
        side,
        status,
      ),
      stage,
      keys,
    );
    place.tabIndex = 0;
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", "Frame viewer");
    place.setAttribute("aria-describedby", keys.id);

    place.addEventListener("keydown", (event) => {
      if (event.target === select || event.ctrlKey || event.metaKey || event.altKey) return;
      const key = event.key.toLowerCase();
      if (key === "arrowleft") step(-1);
      else if (key === "arrowright") step(1);
      else if (key === "home") frame = 0;
      else if (key === "end") frame = clip.frames.length - 1;
      else if (key === "t") flip();
      else if (key === "s") alone = null;
      else if (/^[1-9]$/.test(key) && Number(key) <= clip.streams.length) alone = Number(key) - 1;
      else return;
      event.preventDefault();
      show();
    });

    function fill() {
      stage.replaceChildren(
        ...clip.streams.map((stream) =>
          make("figure", {}, make("img"), make("figcaption", {}, make("strong", {}, stream.name))),
        ),
      );
      for (const figure of stage.children) figure.lastChild.append(make("span"));
      if (alone !== null) alone = Math.min(alone, clip.streams.length - 1);
      show();
    }

    function show() {
      const number = clip.frames[frame];
      clip.streams.forEach((stream, index) => {
        const figure = stage.children[index];
        const [image, caption] = figure.children;
        if (image.getAttribute("src") !== stream.pictures[frame]) image.src = stream.pictures[frame];
        image.alt = `${clip.clip}, frame ${number}, ${stream.name}`;
        const words = [stream.caption, stream.notes[frame]].filter((part) => part);
        caption.lastChild.textContent = words.map((part) => `, ${part}`).join("");
        figure.hidden = alone !== null && alone !== index;
      });
      stage.classList.toggle("alone", alone !== null);
      side.setAttribute("aria-pressed", String(alone === null));
      next.setAttribute("aria-pressed", String(alone !== null));
      const which = alone === null ? "side by side" : clip.streams[alone].name;
      status.textContent = `frame ${number} (${frame + 1} of ${clip.frames.length}), ${which}`;
    }

    fill();
  }

  for (const [place, section] of Object.entries(data.plots)) {
    plots(document.getElementById(place), section);
  }
  if (data.viewer.length) viewer(document.getElementById("viewer"), data.viewer);
})();
