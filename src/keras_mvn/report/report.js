"use strict";
(function () {
  // Tables that extend to the right fade out there until they are scrolled to their end.
  const tables = document.querySelectorAll(".scroll");
  const mark = (one) => one.classList.toggle("more",
    one.scrollLeft + one.clientWidth < one.scrollWidth - 1);
  const markAll = () => tables.forEach(mark);
  tables.forEach((one) => one.addEventListener("scroll", () => mark(one), { passive: true }));
  document.querySelectorAll("details").forEach((one) => one.addEventListener("toggle", markAll));
  window.addEventListener("resize", markAll);
  markAll();
})();
(function () {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const d = data.targets.length;
  const byId = (id) => document.getElementById(id);
  const state = { row: 0, across: 0, up: Math.min(1, d - 1), fixed: new Map() };

  // --- distributions ---------------------------------------------------------------------------

  /** Half-width of a 90 % interval (m = 1) or radius of a 90 % ellipse (2), in scales. */
  const radius = (m, fixed) => data.radii[data.radius[state.row]][fixed][m - 1];

  /** Standard deviations divided by scales: a Student's t has heavier tails than a normal. */
  function spread(fixed) {
    const nu = data.freedom[state.row];
    return nu === null ? 1 : Math.sqrt((nu + fixed) / (nu + fixed - 2));
  }

  /** Scale matrix Σ = L Lᵀ of a row, from the packed lower triangle of L. */
  function covariance(row) {
    const packed = data.factor[row];
    const at = (i, k) => packed[(i * (i + 1)) / 2 + k];
    return grid(d, d, (i, j) => {
      let sum = 0;
      for (let k = 0; k <= Math.min(i, j); k++) sum += at(i, k) * at(j, k);
      return sum;
    });
  }

  /** Lower Cholesky factor; null if the matrix is not positive definite in double precision. */
  function cholesky(a) {
    const n = a.length;
    const l = grid(n, n, () => 0);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        let sum = a[i][j];
        for (let k = 0; k < j; k++) sum -= l[i][k] * l[j][k];
        if (i === j) {
          if (!(sum > 1e-14 * a[i][i])) return null;
          l[i][i] = Math.sqrt(sum);
        } else {
          l[i][j] = sum / l[j][j];
        }
      }
    }
    return l;
  }

  /** Solve L x = b by forward substitution. */
  function substitute(l, b) {
    const x = [];
    for (let i = 0; i < b.length; i++) {
      let sum = b[i];
      for (let k = 0; k < i; k++) sum -= l[i][k] * x[k];
      x.push(sum / l[i][i]);
    }
    return x;
  }

  /**
   * The distribution of a row given the fixed targets: with Σ_aa = L Lᵀ and W = L⁻¹ Σ_ab,
   * location μ_b + Wᵀ L⁻¹ (y_a − μ_a) and scale matrix f (Σ_bb − Wᵀ W), where f = 1 for a normal,
   * and (ν + q)/(ν + k) for a Student's t, q the squared distance of the k fixed values. A fixed
   * target has its value and scale 0. Null if the fixed targets depend on each other.
   */
  function condition(mean, sigma, fixed) {
    const known = [...fixed.keys()];
    const l = cholesky(known.map((i) => known.map((j) => sigma[i][j])));
    if (l === null) return null;
    const shift = substitute(l, known.map((i) => fixed.get(i) - mean[i]));
    const w = mean.map((_, j) => substitute(l, known.map((i) => sigma[i][j])));
    const nu = data.freedom[state.row];
    const f = nu === null ? 1 : (nu + dot(shift, shift)) / (nu + known.length);
    return {
      fixed: known.length,
      mean: mean.map((m, j) => (fixed.has(j) ? fixed.get(j) : m + dot(w[j], shift))),
      sigma: grid(d, d, (i, j) =>
        fixed.has(i) || fixed.has(j) ? 0 : f * (sigma[i][j] - dot(w[i], w[j]))
      ),
    };
  }

  const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
  const grid = (n, m, f) =>
    Array.from({ length: n }, (_, i) => Array.from({ length: m }, (_, j) => f(i, j)));
  /** The scale of a target: its standard deviation, for a normal. */
  const stddev = (sigma, i) => Math.sqrt(Math.max(sigma[i][i], 0));

  function current() {
    const mean = data.mean[state.row];
    const sigma = covariance(state.row);
    const now = state.fixed.size ? condition(mean, sigma, state.fixed) : { mean, sigma, fixed: 0 };
    return { mean, sigma, now };
  }

  // --- text ------------------------------------------------------------------------------------

  function format(value, digits = 4) {
    const size = Math.abs(value);
    const text =
      size !== 0 && (size < 1e-4 || size >= 1e7)
        ? value.toExponential(digits - 1)
        : String(Number(value.toPrecision(digits)));
    return text.replace(/-/g, "−");
  }

  function element(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  const shortened = (text) => (text.length > 44 ? text.slice(0, 43) + "…" : text);

  /** A mean, and its 90 % interval below; numbers in full for programs that read the page. */
  function estimate(mean, scale, fixed) {
    const sd = scale * spread(fixed), reach = scale * radius(1, fixed);
    const value = element("data", { value: String(mean), "data-stddev": String(sd) }, format(mean));
    const ends = `${format(mean - reach, 3)} to ${format(mean + reach, 3)}`;
    return [value, element("small", {}, scale > 0 ? ends : "fixed")];
  }

  // --- the plane of two targets ----------------------------------------------------------------

  const WIDTH = 400, HEIGHT = 340, LEFT = 58, RIGHT = 10, TOP = 10, BOTTOM = 44;

  function draw(name, attributes, words) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (words !== undefined) node.textContent = words;
    return node;
  }

  function ticks(low, high) {
    const rough = (high - low) / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
    return found;
  }

  /** Range of an axis: 99 % ranges of the target, before and now, and its observed value. */
  function range(i, { mean, sigma, now }) {
    const seen = data.observed[state.row][i];
    const points = [];
    for (const one of now === null ? [{ mean, sigma, fixed: 0 }] : [{ mean, sigma, fixed: 0 }, now]) {
      const reach = Math.max(3.1, 1.2 * radius(2, one.fixed)) * stddev(one.sigma, i);
      points.push(one.mean[i] - reach, one.mean[i] + reach);
    }
    if (seen !== null) points.push(seen);
    if (state.fixed.has(i)) points.push(state.fixed.get(i));
    const low = Math.min(...points), high = Math.max(...points);
    return [low - 0.04 * (high - low), high + 0.04 * (high - low)];
  }

  /** The outline of the region of two targets; a line or a point if targets are fixed. */
  function outline({ mean, sigma, fixed }, i, j) {
    const a = stddev(sigma, i);
    const slope = a > 0 ? sigma[i][j] / a : 0;
    const rest = Math.sqrt(Math.max(sigma[j][j] - slope * slope, 0));
    const reach = radius(a > 0 && rest > 0 ? 2 : 1, fixed); // one target left: its interval
    return Array.from({ length: 121 }, (_, k) => {
      const angle = (2 * Math.PI * k) / 120;
      const u = reach * Math.cos(angle), v = reach * Math.sin(angle);
      return [mean[i] + a * u, mean[j] + slope * u + rest * v];
    });
  }

  function plane({ mean, sigma, now }) {
    const i = state.across, j = state.up;
    const xs = range(i, { mean, sigma, now }), ys = range(j, { mean, sigma, now });
    const px = (x) => LEFT + ((x - xs[0]) / (xs[1] - xs[0])) * (WIDTH - LEFT - RIGHT);
    const py = (y) => HEIGHT - BOTTOM - ((y - ys[0]) / (ys[1] - ys[0])) * (HEIGHT - TOP - BOTTOM);
    const svg = draw("svg", { role: "img", viewBox: `0 0 ${WIDTH} ${HEIGHT}` });
    const bottom = HEIGHT - BOTTOM;
    for (const x of ticks(...xs)) {
      svg.append(draw("path", { class: "grid", d: `M${px(x)} ${TOP}V${bottom}` }));
      svg.append(draw("text", { x: px(x), y: bottom + 15, "text-anchor": "middle" }, format(x)));
    }
    for (const y of ticks(...ys)) {
      svg.append(draw("path", { class: "grid", d: `M${LEFT} ${py(y)}H${WIDTH - RIGHT}` }));
      svg.append(draw("text", { x: LEFT - 6, y: py(y) + 4, "text-anchor": "end" }, format(y)));
    }
    const middle = (TOP + bottom) / 2;
    svg.append(
      draw("text", { class: "axis", x: (LEFT + WIDTH) / 2, y: HEIGHT - 8, "text-anchor": "middle" },
        shortened(data.targets[i])),
      draw("text", { class: "axis", "text-anchor": "middle",
        transform: `translate(12 ${middle}) rotate(-90)` }, shortened(data.targets[j]))
    );
    const path = (points) => "M" + points.map(([x, y]) => `${px(x)} ${py(y)}`).join("L") + "Z";
    const cross = (m, css) =>
      draw("path", { class: `cross ${css}`,
        d: `M${px(m[i]) - 5} ${py(m[j])}h10M${px(m[i])} ${py(m[j]) - 5}v10` });
    svg.append(draw("path", { class: "ellipse prior", d: path(outline({ mean, sigma, fixed: 0 }, i, j)) }));
    svg.append(cross(mean, "prior"));
    if (now !== null) {
      svg.append(draw("path", { class: "ellipse now", d: path(outline(now, i, j)) }));
      svg.append(cross(now.mean, "c0"));
    }
    const seen = data.observed[state.row];
    if (seen[i] !== null && seen[j] !== null) {
      svg.append(draw("circle", { class: "dot c1", cx: px(seen[i]), cy: py(seen[j]), r: 4.5 }));
    }
    svg.setAttribute("aria-label", inWords({ mean, sigma, now }));
    return svg;
  }

  function inWords({ mean, sigma, now }) {
    const i = state.across, j = state.up;
    const rho = sigma[i][j] / (stddev(sigma, i) * stddev(sigma, j));
    return (
      `90 % ellipse of ${data.targets[i]} and ${data.targets[j]} in row ${label()}, around ` +
      `${format(mean[i])} and ${format(mean[j])}, correlation ${format(rho)}. ` + summary(now)
    );
  }

  const label = () => data.labels[state.row];

  function summary(now) {
    if (!state.fixed.size) return d > 1 ? "No target is fixed." : "";
    const given = [...state.fixed].map(([i, value]) => `${data.targets[i]} = ${format(value)}`);
    if (now === null) return `${given.join(", ")}: these targets depend on each other; release one.`;
    const others = data.targets
      .map((name, i) => (state.fixed.has(i) ? "" : `${name} ${format(now.mean[i])}`))
      .filter(Boolean);
    return `Given ${given.join(", ")}: ${others.length ? others.join(", ") : "all targets are fixed"}.`;
  }

  // --- the controls ----------------------------------------------------------------------------

  const controls = [];

  function build() {
    const list = byId("row");
    data.labels.forEach((text, k) => list.append(element("option", { value: k }, text)));
    for (const select of [byId("across"), byId("up")]) {
      data.targets.forEach((text, k) => select.append(element("option", { value: k }, text)));
    }
    if (d === 1) {
      for (const id of ["plane", "release", "fix-head", "given-head", "how"]) byId(id).hidden = true;
    }
    data.targets.forEach(buildTarget);
    list.addEventListener("change", () => choose(Number(list.value)));
    byId("search").addEventListener("input", search);
    byId("across").addEventListener("change", (event) => pair("across", "up", event.target));
    byId("up").addEventListener("change", (event) => pair("up", "across", event.target));
    byId("release").addEventListener("click", () => {
      state.fixed.clear();
      fill();
      show();
    });
  }

  function buildTarget(name, i) {
    const box = element("input", { type: "number", step: "any", "aria-label": `Fix ${name} at`,
      placeholder: "free" });
    const slider = element("input", { type: "range", step: "any",
      "aria-label": `Fix ${name} at, slider` });
    // Explicit roles, because the narrow layout removes the table's own.
    const cell = (head, css, ...children) =>
      element("td", { role: "cell", class: css, "data-head": head }, ...children);
    const seen = cell("Observed", "num"), before = cell("Predicted", "num");
    const after = cell("Given the fixed values", "num"), fix = cell("Fix at", "", box, slider);
    const title = element("th", { role: "rowheader", scope: "row" }, name);
    const row = element("tr", { role: "row" }, title, fix, before, after, seen);
    fix.hidden = after.hidden = d === 1;
    box.addEventListener("input", () => {
      const value = box.valueAsNumber;
      set(i, box.value === "" || !Number.isFinite(value) ? null : value);
      slider.value = state.fixed.has(i) ? value : data.mean[state.row][i];
    });
    slider.addEventListener("input", () => {
      const value = Number(slider.valueAsNumber.toPrecision(4));
      box.value = value;
      set(i, value);
    });
    byId("rows").append(row);
    controls.push({ row, box, slider, seen, before, after });
  }

  function set(i, value) {
    if (value === null) state.fixed.delete(i);
    else state.fixed.set(i, value);
    show();
  }

  function search() {
    const wanted = byId("search").value.trim().toLowerCase();
    const list = byId("row");
    const found = data.labels
      .map((text, k) => [text, k])
      .filter(([text]) => text.toLowerCase().includes(wanted));
    list.replaceChildren(...found.map(([text, k]) => element("option", { value: k }, text)));
    list.value = String(state.row);
    byId("matches").textContent = wanted
      ? found.length + (found.length === 1 ? " row" : " rows") : "";
  }

  function pair(mine, other, select) {
    const before = state[mine];
    state[mine] = Number(select.value);
    if (state[mine] === state[other]) state[other] = before; // swapped
    show();
  }

  function choose(row) {
    state.row = row;
    state.fixed.clear(); // values of one row mean nothing in another
    fill();
    show();
  }

  /** Update what depends on the row alone. */
  function fill() {
    const mean = data.mean[state.row], sigma = covariance(state.row);
    controls.forEach(({ box, slider, seen, before }, i) => {
      const sd = stddev(sigma, i), observed = data.observed[state.row][i];
      box.value = "";
      slider.min = mean[i] - 4 * sd;
      slider.max = mean[i] + 4 * sd;
      slider.value = mean[i];
      before.replaceChildren(...estimate(mean[i], sd, 0));
      seen.replaceChildren(observed === null ? "not observed" : d === 1 ? format(observed)
        : observedButton(i, observed));
    });
    const inputs = data.inputs.flatMap((name, k) => [
      element("dt", {}, name), element("dd", {}, data.values[state.row][k]),
    ]);
    byId("inputs").querySelector("dl").replaceChildren(...inputs);
    byId("inputs").hidden = inputs.length === 0;
  }

  function observedButton(i, observed) {
    const button = element("button", { type: "button",
      "aria-label": `Fix ${data.targets[i]} at its observed value ${format(observed)}` },
      format(observed));
    button.addEventListener("click", () => {
      controls[i].box.value = observed;
      controls[i].slider.value = observed;
      set(i, observed);
    });
    return button;
  }

  /** Update what depends on the row, the pair and the fixed targets. */
  function show() {
    const found = current();
    byId("row").value = String(state.row);
    byId("picked").textContent = label();
    byId("across").value = String(state.across);
    byId("up").value = String(state.up);
    controls.forEach(({ row, after }, i) => {
      row.classList.toggle("fixed", state.fixed.has(i));
      after.replaceChildren(...(found.now === null ? ["–"]
        : estimate(found.now.mean[i], stddev(found.now.sigma, i), found.now.fixed)));
    });
    if (d > 1) byId("drawing").replaceChildren(plane(found));
    byId("said").textContent = summary(found.now);
  }

  build();
  byId("app").hidden = false;
  byId("no-script").hidden = true;
  choose(0);
})();
