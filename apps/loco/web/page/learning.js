// Is it learning: Dice against labels and versions, with its spread over the validation cases.

import { lines } from './chart.js';
import { part, setShown, setText } from './dom.js';
import { count, figure } from './format.js';

export class LearningCurves {
  constructor(root) {
    this.root = root;
  }

  show(learning) {
    const { versions, sentence } = learning;
    setText(part(this.root, 'sentence'), versions.length ? sentence : 'Dice of each model on the same validation cases.');
    const measured = versions.filter(version => version.dice !== null);
    setShown(part(this.root, 'no-versions'), !versions.length);
    setShown(part(this.root, 'charts'), measured.length);
    // before two versions can be compared each is shown on its own cases, and the sentence says so
    const compared = measured.filter(version => version.comparable);
    const shown = compared.length > 1 ? compared : measured;
    const drawn = JSON.stringify(versions);
    if (!measured.length || drawn === this.drawn) {
      return;
    }
    this.drawn = drawn;
    const byLabels = shown.filter(v => v.labels !== null).sort((a, b) => a.labels - b.labels || a.version - b.version);
    this.draw('by-labels', 'Dice by number of labels', 'labels', byLabels, v => v.labels, learning.classes);
    this.draw('by-version', 'Dice by model version', 'version', shown, v => v.version, learning.classes);
  }

  draw(name, title, xName, versions, xOf, classes) {
    const latest = versions.at(-1);
    lines(part(this.root, name), {
      title,
      description: latest
        ? `The mean Dice went from ${figure(versions[0].dice)} to ${figure(latest.dice)}; the spread is one standard deviation over the cases.`
        : 'No version was measured yet.',
      xName,
      yName: 'Dice',
      xText: count,
      yText: figure,
      xTicks: xName === 'version' ? 'all' : 'some',
      series: seriesOf(versions, xOf, classes).map(one => ({ ...one, loose: versions.some(v => !v.comparable) })),
      heads: [xName === 'labels' ? 'Labels' : 'Version', ...(xName === 'labels' ? ['Version'] : ['Labels']), 'Cases', 'Mean', ...severalOf(classes)],
      rows: versions.map(v => [
        count(xOf(v)),
        count(xName === 'labels' ? v.version : v.labels),
        count(v.cases),
        withSpread(v.dice, v.sd),
        ...severalOf(classes).map(c => withSpread(v.per_class[c]?.mean, v.per_class[c]?.sd)),
      ]),
    });
  }
}

// With one class its Dice is the mean.
const severalOf = classes => (classes.length > 1 ? classes : []);

function withSpread(mean, sd) {
  return Number.isFinite(sd) ? `${figure(mean)} ± ${figure(sd)}` : figure(mean);
}

function seriesOf(versions, xOf, classes) {
  const point = (version, mean, sd, what) => ({
    x: xOf(version),
    y: mean,
    low: mean - sd,
    high: mean + sd,
    hint: `Version ${version.version}, ${what}: ${withSpread(mean, sd)} on ${count(version.cases)} cases`,
  });
  if (classes.length > 1) {
    return classes.map(name => ({
      name,
      points: versions.filter(v => v.per_class[name]).map(v => point(v, v.per_class[name].mean, v.per_class[name].sd, name)),
    }));
  }
  return [{ name: `${classes[0] || 'Mean'} ± standard deviation`, points: versions.map(v => point(v, v.dice, v.sd, classes[0] || 'mean')) }];
}
