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

  // An answer is a mixture of parts, normals or Student's t, most often of one. Each has the
  // logarithm of its weight, its location, its scale matrix, its ν (null for a normal), the radii
  // of its regions, and how many targets are fixed.

  /** The answer of a row, with nothing fixed. */
  function answerOf(row) {
    return {
      parts: data.parts[row].map((one) => ({
        log: one.log, mean: one.mean, sigma: covariance(one.factor), nu: one.nu,
        radii: data.radii[one.radius], fixed: 0,
      })),
    };
  }

  /** Half-width of a 90 % interval (m = 1) or radius of a 90 % ellipse (2), in scales. */
  const radius = (part, m) => part.radii[part.fixed][m - 1];

  /** Variances divided by squared scales: a Student's t has heavier tails than a normal. */
  const spread = ({ nu, fixed }) => (nu === null ? 1 : (nu + fixed) / (nu + fixed - 2));

  /** Scale matrix Σ = L Lᵀ, from the packed lower triangle of L. */
  function covariance(packed) {
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
   * The distribution of a part given the fixed targets: with Σ_aa = L Lᵀ and W = L⁻¹ Σ_ab,
   * location μ_b + Wᵀ L⁻¹ (y_a − μ_a) and scale matrix f (Σ_bb − Wᵀ W), where f = 1 for a normal,
   * and (ν + q)/(ν + k) for a Student's t, q the squared distance of the k fixed values. A fixed
   * target has its value and scale 0. The weight is multiplied by the density of the fixed values.
   * Null if the fixed targets depend on each other.
   */
  function conditionPart(part, fixed) {
    const { mean, sigma, nu } = part;
    const known = [...fixed.keys()];
    const l = cholesky(known.map((i) => known.map((j) => sigma[i][j])));
    if (l === null) return null;
    const shift = substitute(l, known.map((i) => fixed.get(i) - mean[i]));
    const w = mean.map((_, j) => substitute(l, known.map((i) => sigma[i][j])));
    const q = dot(shift, shift);
    const f = nu === null ? 1 : (nu + q) / (nu + known.length);
    return {
      ...part,
      fixed: known.length,
      log: part.log + logDensity(nu, known.length, q) - l.reduce((s, row, i) => s + Math.log(row[i]), 0),
      mean: mean.map((m, j) => (fixed.has(j) ? fixed.get(j) : m + dot(w[j], shift))),
      sigma: grid(d, d, (i, j) =>
        fixed.has(i) || fixed.has(j) ? 0 : f * (sigma[i][j] - dot(w[i], w[j]))
      ),
    };
  }

  /** The answer given the fixed targets: parts that made these values probable weigh more. */
  function condition({ parts }, fixed) {
    const found = parts.map((part) => conditionPart(part, fixed));
    if (found.includes(null)) return null;
    const largest = Math.max(...found.map((part) => part.log));
    const total = largest + Math.log(sum(found, (part) => Math.exp(part.log - largest)));
    return { parts: found.map((part) => ({ ...part, log: part.log - total })) };
  }

  /** Log-density of m standardized targets at squared distance q. */
  function logDensity(nu, m, q) {
    if (nu === null) return -0.5 * (q + m * Math.log(2 * Math.PI));
    return logGamma((nu + m) / 2) - logGamma(nu / 2) - (m / 2) * Math.log(nu * Math.PI)
      - ((nu + m) / 2) * Math.log1p(q / nu);
  }

  /** log Γ(x) for x > 0: Stirling's series, after steps up to where it is accurate. */
  function logGamma(x) {
    let steps = 0;
    for (; x < 10; x++) steps += Math.log(x);
    const y = 1 / (x * x);
    return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI)
      + (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y / 1680))) / x - steps;
  }

  /** Distribution function of a standardized target: P(T ≤ t), by Simpson's rule in an angle. */
  function distributionFunction(part, t) {
    const nu = part.nu === null ? null : part.nu + part.fixed;
    const scale = nu === null ? 1 : Math.sqrt(nu);
    const end = Math.atan(Math.abs(t) / scale); // t = scale tan(angle)
    const n = 64, h = end / n;
    const at = (angle) => {
      const x = scale * Math.tan(angle);
      return Math.exp(logDensity(nu, 1, x * x)) * scale * (1 + Math.tan(angle) ** 2);
    };
    let inner = at(0) + at(end);
    for (let k = 1; k < n; k++) inner += (k % 2 ? 4 : 2) * at(k * h);
    const half = Math.min((inner * h) / 3, 0.5);
    return t < 0 ? 0.5 - half : 0.5 + half;
  }

  const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
  const sum = (values, f) => values.reduce((total, value) => total + f(value), 0);
  const grid = (n, m, f) =>
    Array.from({ length: n }, (_, i) => Array.from({ length: m }, (_, j) => f(i, j)));
  const weight = (part) => Math.exp(part.log);
  /** The scale of a target of a part: its standard deviation, for a normal. */
  const scaleOf = (part, i) => Math.sqrt(Math.max(part.sigma[i][i], 0));

  const meanOf = ({ parts }, i) => sum(parts, (part) => weight(part) * part.mean[i]);

  function covarianceOf(answer, i, j) {
    const a = meanOf(answer, i), b = meanOf(answer, j);
    return sum(answer.parts, (part) =>
      weight(part) * (spread(part) * part.sigma[i][j] + (part.mean[i] - a) * (part.mean[j] - b)));
  }

  const stddevOf = (answer, i) => Math.sqrt(Math.max(covarianceOf(answer, i, i), 0));

  /** The central 90 % interval of a target. */
  function interval(answer, i) {
    const { parts } = answer;
    const ends = parts.map((part) => [
      part.mean[i] - radius(part, 1) * scaleOf(part, i),
      part.mean[i] + radius(part, 1) * scaleOf(part, i),
    ]);
    if (parts.length === 1 || scaleOf(parts[0], i) === 0) return ends[0];
    const below = (x) =>
      sum(parts, (part) => weight(part) * distributionFunction(part, (x - part.mean[i]) / scaleOf(part, i)));
    return [0, 1].map((side) => {
      const p = side ? 0.5 + data.level / 2 : 0.5 - data.level / 2;
      let low = Math.min(...ends.map((one) => one[side])), high = Math.max(...ends.map((one) => one[side]));
      for (let k = 0; k < 40; k++) {
        const middle = (low + high) / 2;
        if (below(middle) < p) low = middle;
        else high = middle;
      }
      return (low + high) / 2;
    });
  }

  function current() {
    const prior = answerOf(state.row);
    const now = state.fixed.size ? condition(prior, state.fixed) : prior;
    return { prior, now };
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
  function estimate(answer, i) {
    const mean = meanOf(answer, i), sd = stddevOf(answer, i);
    const value = element("data", { value: String(mean), "data-stddev": String(sd) }, format(mean));
    const [low, high] = interval(answer, i);
    const ends = `${format(low, 3)} to ${format(high, 3)}`;
    return [value, element("small", {}, scaleOf(answer.parts[0], i) > 0 ? ends : "fixed")];
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
  function range(i, { prior, now }) {
    const seen = data.observed[state.row][i];
    const points = [];
    for (const answer of now === null ? [prior] : [prior, now]) {
      const shown = answer.parts.filter((part) => weight(part) > 0.01);
      for (const part of shown) {
        const reach = Math.max(3.1, 1.2 * radius(part, 2)) * scaleOf(part, i);
        points.push(part.mean[i] - reach, part.mean[i] + reach);
      }
    }
    if (seen !== null) points.push(seen);
    if (state.fixed.has(i)) points.push(state.fixed.get(i));
    const low = Math.min(...points), high = Math.max(...points);
    return [low - 0.04 * (high - low), high + 0.04 * (high - low)];
  }

  /** The ellipse of two targets of a part; a line or a point if targets are fixed. */
  function ellipse(part, i, j) {
    const { mean, sigma } = part;
    const a = scaleOf(part, i);
    const slope = a > 0 ? sigma[i][j] / a : 0;
    const rest = Math.sqrt(Math.max(sigma[j][j] - slope * slope, 0));
    const reach = radius(part, a > 0 && rest > 0 ? 2 : 1); // one target left: its interval
    return Array.from({ length: 121 }, (_, k) => {
      const angle = (2 * Math.PI * k) / 120;
      const u = reach * Math.cos(angle), v = reach * Math.sin(angle);
      return [mean[i] + a * u, mean[j] + slope * u + rest * v];
    });
  }

  const LINES = 81;

  /** Log-density of two targets, up to a constant that is the same everywhere. */
  function densityOf({ parts }, i, j) {
    const factors = parts.map((part) => cholesky([
      [part.sigma[i][i], part.sigma[i][j]], [part.sigma[j][i], part.sigma[j][j]],
    ]));
    return (x, y) => Math.log(sum(parts.map((part, k) => [part, factors[k]]), ([part, l]) => {
      if (l === null) return 0;
      const z = substitute(l, [x - part.mean[i], y - part.mean[j]]);
      const nu = part.nu === null ? null : part.nu + part.fixed;
      return Math.exp(part.log + logDensity(nu, 2, dot(z, z))) / (l[0][0] * l[1][1]);
    }));
  }

  /**
   * The border of the smallest region of two targets that holds 90 %, as pieces of its curves: on a
   * grid, whose cells of highest density are counted up to 90 %; borders are interpolated.
   */
  function contour(answer, i, j, xs, ys) {
    const at = (ends, k) => ends[0] + ((ends[1] - ends[0]) * k) / (LINES - 1);
    const density = densityOf(answer, i, j);
    const values = grid(LINES, LINES, (k, m) => density(at(xs, k), at(ys, m)));
    const falling = values.flat().sort((a, b) => b - a);
    const cell = ((xs[1] - xs[0]) * (ys[1] - ys[0])) / (LINES - 1) ** 2;
    let inside = 0, limit = falling[0];
    for (const value of falling) {
      if (inside >= data.level) break;
      inside += Math.exp(value) * cell;
      limit = value;
    }
    const pieces = [];
    for (let k = 0; k + 1 < LINES; k++) {
      for (let m = 0; m + 1 < LINES; m++) {
        for (const corners of [[[k, m], [k + 1, m], [k, m + 1]], [[k + 1, m + 1], [k + 1, m], [k, m + 1]]]) {
          const crossed = [[0, 1], [1, 2], [2, 0]].flatMap(([a, b]) => {
            const [p, q] = [corners[a], corners[b]];
            const [u, v] = [values[p[0]][p[1]] - limit, values[q[0]][q[1]] - limit];
            if ((u > 0) === (v > 0)) return [];
            const t = Number.isFinite(u - v) ? u / (u - v) : 0.5;
            return [[at(xs, p[0] + t * (q[0] - p[0])), at(ys, p[1] + t * (q[1] - p[1]))]];
          });
          if (crossed.length === 2) pieces.push(crossed);
        }
      }
    }
    return pieces;
  }

  /** The region of two targets as lines: each a list of points. */
  function outline(answer, i, j, xs, ys) {
    const [first, ...others] = answer.parts;
    if (!others.length) return [ellipse(first, i, j)];
    if (scaleOf(first, i) > 0 && scaleOf(first, j) > 0) return contour(answer, i, j, xs, ys);
    const [low, high] = [i, j].map((k) => interval(answer, k)).reduce(
      ([a, b], ends) => [[...a, ends[0]], [...b, ends[1]]], [[], []]);
    return [[low, high]];
  }

  function plane({ prior, now }) {
    const i = state.across, j = state.up;
    const xs = range(i, { prior, now }), ys = range(j, { prior, now });
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
    const line = (points) => "M" + points.map(([x, y]) => `${px(x)} ${py(y)}`).join("L");
    const region = (answer, css) => draw("path", { class: `ellipse ${css}`,
      d: outline(answer, i, j, xs, ys).map((points) => line(points) + (points.length > 2 ? "Z" : "")).join("") });
    const cross = (answer, css) => {
      const x = px(meanOf(answer, i)), y = py(meanOf(answer, j));
      return draw("path", { class: `cross ${css}`, d: `M${x - 5} ${y}h10M${x} ${y - 5}v10` });
    };
    svg.append(region(prior, "prior"), cross(prior, "prior"));
    if (now !== null) svg.append(region(now, "now"), cross(now, "c0"));
    const seen = data.observed[state.row];
    if (seen[i] !== null && seen[j] !== null) {
      svg.append(draw("circle", { class: "dot c1", cx: px(seen[i]), cy: py(seen[j]), r: 4.5 }));
    }
    svg.setAttribute("aria-label", inWords({ prior, now }));
    return svg;
  }

  function inWords({ prior, now }) {
    const i = state.across, j = state.up;
    const rho = covarianceOf(prior, i, j) / (stddevOf(prior, i) * stddevOf(prior, j));
    const shape = prior.parts.length > 1 ? "region" : "ellipse";
    return (
      `90 % ${shape} of ${data.targets[i]} and ${data.targets[j]} in row ${label()}, around ` +
      `${format(meanOf(prior, i))} and ${format(meanOf(prior, j))}, correlation ${format(rho)}. ` +
      summary(now)
    );
  }

  const label = () => data.labels[state.row];

  function summary(now) {
    if (!state.fixed.size) return d > 1 ? "No target is fixed." : "";
    const given = [...state.fixed].map(([i, value]) => `${data.targets[i]} = ${format(value)}`);
    if (now === null) return `${given.join(", ")}: these targets depend on each other; release one.`;
    const others = data.targets
      .map((name, i) => (state.fixed.has(i) ? "" : `${name} ${format(meanOf(now, i))}`))
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
      slider.value = state.fixed.has(i) ? value : meanOf(answerOf(state.row), i);
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
    const prior = answerOf(state.row);
    controls.forEach(({ box, slider, seen, before }, i) => {
      const mean = meanOf(prior, i), sd = stddevOf(prior, i), observed = data.observed[state.row][i];
      box.value = "";
      slider.min = mean - 4 * sd;
      slider.max = mean + 4 * sd;
      slider.value = mean;
      before.replaceChildren(...estimate(prior, i));
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
      after.replaceChildren(...(found.now === null ? ["–"] : estimate(found.now, i)));
    });
    if (d > 1) byId("drawing").replaceChildren(plane(found));
    byId("said").textContent = summary(found.now);
  }

  build();
  byId("app").hidden = false;
  byId("no-script").hidden = true;
  choose(0);
})();
