// Numbers, times and durations in the reader's locale. `null` is shown as a dash: not known.

export const UNKNOWN = '–';

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const dice = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const percent = new Intl.NumberFormat(undefined, { style: 'percent', maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(undefined, { style: 'percent', maximumFractionDigits: 1 });
const significant = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const seconds = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const date = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', timeZone: 'UTC' });
const units = Object.fromEntries(
  ['second', 'minute', 'hour', 'day'].map(unit => [
    unit,
    new Intl.NumberFormat(undefined, { style: 'unit', unit, unitDisplay: 'short', maximumFractionDigits: 0 }),
  ])
);

const unlessUnknown = format => value => (Number.isFinite(value) ? format(value) : UNKNOWN);

export const count = unlessUnknown(value => whole.format(value));
export const figure = unlessUnknown(value => dice.format(value));
export const share = unlessUnknown(value => (value > 0 && value < 0.01 ? fine : percent).format(value));
export const loss = unlessUnknown(value => significant.format(value));

// "3 labels", "1 label".
export function counted(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

// "mask_ratio" as "Mask ratio".
export const readable = name => capital(name.replaceAll('_', ' '));

// The method of a training or a version, with what must stand beside its name.
export const marked = ({ method, method_note: note }) => (note ? `${method} (${note})` : method);

// Words of the server as a sentence.
export const sentence = words => (words ? capital(words) + (/[.!?]$/.test(words) ? '' : '.') : '');

const capital = words => words.charAt(0).toUpperCase() + words.slice(1);

// Unix seconds as a time of today, or a date with a time.
export const moment = unlessUnknown(value => {
  const then = new Date(value * 1000);
  const today = new Date().toDateString() === then.toDateString();
  return today ? clock.format(then) : `${date.format(then)}, ${clock.format(then)}`;
});

export const toTheSecond = value => seconds.format(value);

// "2026-11-21" as a short date.
export const shortDay = text => day.format(new Date(`${text}T00:00:00Z`));

// Seconds in the two largest units: "1 h 5 min".
export const duration = unlessUnknown(value => {
  const total = Math.max(0, Math.round(value));
  const parts = [
    ['day', Math.floor(total / 86400)],
    ['hour', Math.floor(total / 3600) % 24],
    ['minute', Math.floor(total / 60) % 60],
    ['second', total % 60],
  ];
  const first = parts.findIndex(([, n]) => n > 0);
  if (first < 0) {
    return units.second.format(0);
  }
  const shown = parts.slice(first, first + 2).filter(([, n]) => n > 0);
  return shown.map(([unit, n]) => units[unit].format(n)).join(' ');
});

// The same in whole minutes, for what is not to tick.
export const roughly = value => duration(value >= 60 ? Math.round(value / 60) * 60 : value);

const BYTES = ['byte', 'kilobyte', 'megabyte', 'gigabyte'];

export const bytes = unlessUnknown(value => {
  const step = Math.min(BYTES.length - 1, Math.floor(Math.log10(Math.max(1, value)) / 3));
  const format = { style: 'unit', unit: BYTES[step], unitDisplay: 'short', maximumFractionDigits: step > 1 ? 1 : 0 };
  return new Intl.NumberFormat(undefined, format).format(value / 1000 ** step);
});
