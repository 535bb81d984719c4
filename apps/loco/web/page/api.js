// What the page asks of the server. Every failure is an Error whose message is a sentence for people.

import { sentence } from './format.js';

// The server does not answer at all.
export class Offline extends Error {}

// The login has ended, or never began.
export class LoggedOut extends Error {}

const PATIENCE_MS = 20000;

async function answerOf(path, { patience = PATIENCE_MS, ...options } = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: 'same-origin', signal: AbortSignal.timeout(patience), ...options });
  } catch {
    throw new Offline('The server does not answer. Look whether it runs, then try again.');
  }
  if (answer.status === 401) {
    throw new LoggedOut('Your login has ended. Log in again.');
  }
  if (!answer.ok) {
    throw new Error(await sentenceOf(answer));
  }
  return answer;
}

async function sentenceOf(answer) {
  let detail;
  try {
    ({ detail } = await answer.json());
  } catch {
    detail = null;
  }
  const usable = typeof detail === 'string' && detail;
  return sentence(usable ? detail : `the server answered ${answer.status} and did not say why; its log says more`);
}

export async function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return (await answerOf(text ? `${path}?${text}` : path)).json();
}

export async function post(path, body = {}, options = {}) {
  const json = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  return (await answerOf(path, { ...json, ...options })).json();
}

export async function remove(path) {
  return (await answerOf(path, { method: 'DELETE' })).json();
}

export const changes = () => get('/loco/page/changes');
export const summary = () => get('/loco/page/summary');
export const learning = () => get('/loco/page/learning');
export const queue = query => get('/loco/page/queue', query);
export const submissions = query => get('/loco/page/submissions', query);
export const worst = query => get('/loco/page/worst', query);
export const models = () => get('/loco/page/models');
export const versionsOf = image => get('/loco/labels', { image });
export const pin = (image, client) => post('/loco/page/pin', { image, client_id: client });
export const unpin = (image, client) => post('/loco/page/unpin', { image, client_id: client });
export const skip = (image, client, reason) => post('/loco/skip', { image, client_id: client, reason });
export const rollBack = version => post(`/loco/page/models/${version}/live`);
export const makeBundle = version => post(`/loco/page/models/${version}/bundle`);
