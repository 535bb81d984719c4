// How far the project is: labelled, held, passed by, left; labels per day; effort left.

import { bars } from './chart.js';
import { el, keyed, part, setAttribute, setShown, setText } from './dom.js';
import { count, counted, duration, moment, roughly, share, shortDay, UNKNOWN } from './format.js';

const LEAST_DAYS = 7;
const DAY_MS = 86_400_000;
const NAMES = {
  labelled: 'labelled',
  leased: 'being labelled',
  skipped: 'passed by',
  waiting: 'waiting',
  aside: 'set aside for validation',
};

// Disjoint parts of all studies.
export function partsOf({ labelled, leased, skipped, left, set_aside: aside }) {
  const held = leased.length;
  const passed = skipped.reduce((sum, group) => sum + group.count, 0);
  return { labelled, leased: held, skipped: passed, waiting: Math.max(0, left - held - passed), aside };
}

// At least a week, so that the first day does not stand alone.
function padded(days) {
  const first = Date.parse(`${days[0].day}T00:00:00Z`);
  const missing = Array.from({ length: Math.max(0, LEAST_DAYS - days.length) }, (_, i) => ({
    day: new Date(first - (i + 1) * DAY_MS).toISOString().slice(0, 10), labels: 0, images: 0,
  }));
  return [...missing.reverse(), ...days];
}

export class Progress {
  constructor(root, now) {
    [this.root, this.now] = [root, now];
  }

  part(name) {
    return part(this.root, name);
  }

  show(summary) {
    this.summary = summary;
    setText(
      this.part('lead'),
      `${count(summary.labelled)} of ${counted(summary.total, 'study', 'studies')} labelled` +
        (summary.validation ? `, ${count(summary.validation)} of them set aside to measure the models.` : '.')
    );
    this.stack(summary);
    this.leases(summary.leased);
    this.skips(summary.skipped);
    this.effort(summary.effort);
    this.days(summary.per_day);
  }

  // Times that go on while nothing else changes.
  tick() {
    if (this.summary) {
      this.leases(this.summary.leased);
    }
  }

  stack(summary) {
    const parts = Object.entries(partsOf(summary)).filter(([kind, n]) => n > 0 || kind === 'labelled');
    const words = parts.map(([kind, n]) => `${count(n)} ${NAMES[kind]}`).join(', ');
    setAttribute(this.part('stack'), 'aria-label', `${count(summary.total)} studies: ${words}`);
    const shown = parts.filter(([, n]) => n > 0);
    keyed(this.part('stack'), shown, ([kind]) => kind, ([kind]) => el('span', { 'data-kind': kind }), (node, [, n]) => {
      node.style.flexBasis = `${(100 * n) / summary.total}%`;
    });
    const make = ([kind]) =>
      el('li', { 'data-kind': kind }, el('span', { class: 'key', 'aria-hidden': 'true' }),
        el('span', { class: 'what' }, NAMES[kind]), el('span', { class: 'much' }, el('b'), el('span')));
    keyed(this.part('stack-legend'), parts, ([kind]) => kind, make, (node, [, n]) => {
      setText(node.querySelector('b'), count(n));
      setText(node.querySelector('.much span'), share(summary.total ? n / summary.total : null));
    });
  }

  leases(leases) {
    setShown(this.part('no-leases'), !leases.length);
    const make = () => el('li', {}, el('span', { class: 'row-head' }, el('b'), el('span')), el('span', { class: 'hint' }));
    const sorted = [...leases].sort((a, b) => a.until - b.until);
    keyed(this.part('leases'), sorted, lease => lease.image, make, (node, lease) => {
      setText(node.querySelector('b'), lease.image);
      setText(node.querySelector('.row-head span'), roughly(lease.until - this.now()));
      setText(node.querySelector('.hint'), `${lease.client || 'somebody without a name'}, until ${moment(lease.until)}`);
    });
  }

  skips(groups) {
    const some = groups.filter(group => group.count > 0);
    setShown(this.part('no-skips'), !some.length);
    const make = () =>
      el('li', {}, el('span', { class: 'row-head' }, el('b'), el('span')), el('span', { class: 'hint' }),
        el('details', {}, el('summary', {}, 'Which'), el('ul', { class: 'hint' })));
    keyed(this.part('skips'), some, group => group.reason, make, (node, group) => {
      setText(node.querySelector('b'), group.reason);
      setText(node.querySelector('.row-head span'), count(group.count));
      setText(node.querySelector(':scope > .hint'), group.meaning);
      keyed(node.querySelector('ul'), group.images, one => one.image, () => el('li'), (line, one) => {
        setText(line, `${one.image}, ${one.client || 'somebody without a name'}, ${moment(one.ts)}`);
      });
    });
  }

  effort(effort) {
    const known = Number.isFinite(effort.labels);
    setShown(this.part('effort-labels'), known);
    const time = Number.isFinite(effort.minutes) ? `, ${duration(effort.minutes * 60)}` : '';
    setText(this.part('effort-labels'), known ? `${counted(effort.labels, 'label')}${time}` : UNKNOWN);
    setText(this.part('effort'), effort.sentence);
    setText(this.part('effort-method'), known ? effort.method : '');
  }

  days(known) {
    const days = known.length ? padded(known) : known;
    const drawn = JSON.stringify(days);
    setShown(this.part('no-days'), !days.length);
    setShown(this.part('days'), days.length);
    if (!days.length || drawn === this.drawn) {
      return;
    }
    this.drawn = drawn;
    const total = days.reduce((sum, one) => sum + one.labels, 0);
    const best = days.reduce((a, b) => (b.labels > a.labels ? b : a));
    bars(this.part('days'), {
      title: 'Labels per day',
      description: `${counted(total, 'label')} in ${counted(days.length, 'day')}; most on ${shortDay(best.day)}: ${count(best.labels)}.`,
      bars: days.map(one => ({
        name: shortDay(one.day),
        value: one.labels,
        text: count(one.labels),
        hint: `${shortDay(one.day)}: ${counted(one.labels, 'label')} of ${counted(one.images, 'study', 'studies')}`,
      })),
      heads: ['Day', 'Labels', 'Studies'],
      rows: days.map(one => [shortDay(one.day), count(one.labels), count(one.images)]).reverse(),
    });
  }
}
