// Charts as SVG: lines with their spread, and bars. Colours and type come from the style sheet, so both themes work.
//
// A chart draws into a <figure> with three parts: "plot" (the drawing), "legend" and "table" (the same numbers as text).

import { el, part, setText, svg } from './dom.js';

const SHAPES = ['circle', 'square', 'triangle', 'diamond', 'cross', 'ring'];
const observers = new WeakMap();

// Draw now, and anew whenever the width of the figure changes.
function drawn(figure, draw) {
  const plot = part(figure, 'plot');
  observers.get(figure)?.disconnect();
  let width = -1;
  const observer = new ResizeObserver(() => {
    const now = Math.floor(plot.clientWidth);
    if (now !== width && now > 0) {
      width = now;
      plot.replaceChildren(draw(width));
    }
  });
  observer.observe(plot);
  observers.set(figure, observer);
}

function rem() {
  return parseFloat(getComputedStyle(document.documentElement).fontSize);
}

function frame(width, height, title, description) {
  return svg(
    'svg',
    { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': title },
    svg('title', {}, title),
    svg('desc', {}, description)
  );
}

// Round numbers from 0 to at least `highest`, at most `most` steps.
export function ticks(highest, most, whole) {
  const rough = Math.max(highest, whole ? 1 : 1e-9) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= rough * 0.999 && (!whole || n >= 1));
  return Array.from({ length: Math.ceil(highest / step - 1e-9) + 1 }, (_, i) => i * step);
}

// A mark at a point; its shape tells the series apart without colour.
function mark(shape, x, y, size) {
  const at = { class: 'mark', transform: `translate(${x} ${y})` };
  const s = size;
  const paths = {
    square: `M${-s} ${-s}h${2 * s}v${2 * s}h${-2 * s}z`,
    triangle: `M0 ${-1.2 * s}L${1.2 * s} ${s}H${-1.2 * s}z`,
    diamond: `M0 ${-1.4 * s}L${1.4 * s} 0L0 ${1.4 * s}L${-1.4 * s} 0z`,
    cross: `M${-s} ${-s}L${s} ${s}M${s} ${-s}L${-s} ${s}`,
  };
  return paths[shape] ? svg('path', { ...at, d: paths[shape] }) : svg('circle', { ...at, r: s });
}

// Lines without marks are told apart by their dashes.
const classOf = ({ bare }, i) => `series series-${i % 6}${bare ? ' bare' : ''}`;

function legend(node, series) {
  const entries = series.map((one, i) => {
    const key = svg('svg', { width: 28, height: 12, 'aria-hidden': 'true', class: classOf(one, i) });
    if (!one.loose) {
      key.append(svg('path', { class: 'line', d: 'M1 6H27' }));
    }
    if (!one.bare) {
      key.append(mark(SHAPES[i % 6], 14, 6, 4));
    }
    return el('li', {}, key, one.name);
  });
  node.replaceChildren(...entries);
}

function table(node, caption, heads, rows) {
  const head = el('tr', {}, ...heads.map(text => el('th', { scope: 'col' }, text)));
  const body = rows.map(row => el('tr', {}, ...row.map((text, i) => el(i ? 'td' : 'th', i ? {} : { scope: 'row' }, text))));
  node.replaceChildren(el('caption', { class: 'unseen' }, caption), el('thead', {}, head), el('tbody', {}, ...body));
}

// Lines over x, with a band from `low` to `high` where it is known.
//
//   title, description, xName, yName
//   series: [{ name, bare, loose, points: [{ x, y, low, high, hint }] }], x ascending; `bare` lines have no marks, `loose`
//   marks no line: they are not to be compared
//   xText, yText: how a number is written; xTicks: 'all' marks each x that occurs
//   heads, rows: the same as a table
export function lines(figure, chart) {
  legend(part(figure, 'legend'), chart.series);
  table(part(figure, 'table'), chart.title, chart.heads, chart.rows);
  drawn(figure, width => linePlot(chart, width));
}

function linePlot(chart, width) {
  const unit = rem();
  const [left, right, top, bottom] = [2.8 * unit, 1 * unit, 1.6 * unit, 2.9 * unit];
  const height = Math.max(13 * unit, Math.min(17 * unit, width * 0.45));
  const root = frame(width, height, chart.title, chart.description);
  const xs = [...new Set(chart.series.flatMap(s => s.points.map(p => p.x)))].sort((a, b) => a - b);
  const last = xs.at(-1) ?? 1;
  const first = chart.xTicks === 'all' ? xs[0] : 0;
  const span = last - first || 1;
  const inset = chart.xTicks === 'all' ? unit * 1.2 : 0;
  const xOf = x => left + inset + ((last === first ? 0.5 : (x - first) / span) * (width - left - right - 2 * inset));
  const yOf = y => height - bottom - Math.max(0, Math.min(1, y)) * (height - top - bottom);

  for (const y of [0, 0.25, 0.5, 0.75, 1]) {
    root.append(svg('path', { class: y ? 'grid' : 'axis', d: `M${left} ${yOf(y)}H${width - right}` }));
    root.append(svg('text', { class: 'tick', x: left - 0.5 * unit, y: yOf(y) + 0.28 * unit, 'text-anchor': 'end' }, chart.yText(y)));
  }
  const most = Math.max(2, Math.floor((width - left - right) / (4 * unit)));
  const marked = chart.xTicks === 'all' ? thinned(xs, most) : ticks(last, most, true).filter(x => x <= last);
  for (const x of marked) {
    root.append(svg('text', { class: 'tick', x: xOf(x), y: height - bottom + 1.2 * unit, 'text-anchor': 'middle' }, chart.xText(x)));
  }
  root.append(
    svg('text', { class: 'name', x: left - 0.5 * unit, y: 0.9 * unit, 'text-anchor': 'start' }, chart.yName),
    svg('text', { class: 'name', x: width - right, y: height - 0.4 * unit, 'text-anchor': 'end' }, chart.xName)
  );
  chart.series.forEach((series, i) => root.append(line(series, i, xOf, yOf, unit)));
  return root;
}

// At most `most` of the values, the last always among them.
function thinned(values, most) {
  const step = Math.ceil(values.length / most);
  return values.filter((_, i) => (values.length - 1 - i) % step === 0);
}

function line(series, i, xOf, yOf, unit) {
  const group = svg('g', { class: classOf(series, i) });
  const banded = series.points.filter(p => Number.isFinite(p.low) && Number.isFinite(p.high));
  if (banded.length > 1 && !series.loose) {
    const there = banded.map(p => `${xOf(p.x)} ${yOf(p.high)}`);
    const back = banded.map(p => `${xOf(p.x)} ${yOf(p.low)}`).reverse();
    group.append(svg('path', { class: 'band', d: `M${[...there, ...back].join('L')}z` }));
  } else {
    banded.forEach(p => group.append(svg('path', { class: 'whisker', d: `M${xOf(p.x)} ${yOf(p.low)}V${yOf(p.high)}` })));
  }
  const known = series.points.filter(p => Number.isFinite(p.y));
  if (known.length > 1 && !series.loose) {
    group.append(svg('path', { class: 'line', d: `M${known.map(p => `${xOf(p.x)} ${yOf(p.y)}`).join('L')}` }));
  }
  for (const p of series.bare ? [] : known) {
    const point = mark(SHAPES[i % 6], xOf(p.x), yOf(p.y), 0.26 * unit);
    point.append(svg('title', {}, p.hint));
    group.append(point);
  }
  return group;
}

// Bars of counts: { title, description, bars: [{ name, value, hint }], heads, rows }.
export function bars(figure, chart) {
  table(part(figure, 'table'), chart.title, chart.heads, chart.rows);
  const words = part(figure, 'legend');
  if (words) {
    setText(words, '');
  }
  drawn(figure, width => barPlot(chart, width));
}

function barPlot(chart, width) {
  const unit = rem();
  const [left, right, top, bottom] = [0, 0, 1.4 * unit, 1.5 * unit];
  const height = 8.5 * unit;
  const root = frame(width, height, chart.title, chart.description);
  const highest = Math.max(1, ...chart.bars.map(bar => bar.value));
  const step = (width - left - right) / Math.max(1, chart.bars.length);
  const thick = Math.min(2.4 * unit, step * 0.72);
  const most = Math.max(2, Math.floor(width / (4 * unit)));
  const named = new Set(thinned(chart.bars, most));
  const room = step >= 1.6 * unit;
  root.append(svg('path', { class: 'axis', d: `M${left} ${height - bottom}H${width - right}` }));
  chart.bars.forEach((bar, i) => {
    const centre = left + (i + 0.5) * step;
    const tall = (bar.value / highest) * (height - top - bottom);
    const box = { class: 'bar', x: centre - thick / 2, y: height - bottom - tall, width: thick, height: tall, rx: 0.15 * unit };
    root.append(svg('rect', box, svg('title', {}, bar.hint)));
    if (room && bar.value) {
      const above = { class: 'value', x: centre, y: height - bottom - tall - 0.35 * unit, 'text-anchor': 'middle' };
      root.append(svg('text', above, bar.text));
    }
    if (named.has(bar)) {
      const edge = i === 0 ? 'start' : i === chart.bars.length - 1 ? 'end' : 'middle';
      const x = edge === 'start' ? centre - thick / 2 : edge === 'end' ? centre + thick / 2 : centre;
      const anchor = chart.bars.length > 1 && step < 4 * unit ? edge : 'middle';
      const below = { class: 'tick', x: anchor === 'middle' ? centre : x, y: height - 0.3 * unit, 'text-anchor': anchor };
      root.append(svg('text', below, bar.name));
    }
  });
  return root;
}
