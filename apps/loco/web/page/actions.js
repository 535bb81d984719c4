// Buttons that ask something of the server, and how it is said what came of it.

import { LoggedOut } from './api.js';
import { setAttribute, setText } from './dom.js';

// Say something to screen readers, politely and without moving anything.
export function announce(words) {
  setText(document.getElementById('announce'), words);
}

// Say a sentence beside a button: what went wrong, or (kind 'good') what was done.
export function say(place, words, kind = 'bad') {
  place.dataset.kind = kind;
  setText(place, words);
}

// Run an action of a button once at a time. What goes wrong is said in `place`; what `action` returns is announced.
// The button stays where the keyboard is: a disabled one would lose the focus.
export async function act(button, place, action) {
  if (button.getAttribute('aria-disabled') === 'true') {
    return;
  }
  setAttribute(button, 'aria-disabled', 'true');
  say(place, '');
  try {
    announce((await action()) || '');
  } catch (error) {
    failed(place, error);
  } finally {
    setAttribute(button, 'aria-disabled', null);
  }
}

// Load something for the reader; what goes wrong is said in `place`.
export async function tried(place, load) {
  try {
    await load();
    say(place, '');
  } catch (error) {
    failed(place, error);
  }
}

function failed(place, error) {
  say(place, error.message);
  if (error instanceof LoggedOut) {
    window.dispatchEvent(new Event('loco-logged-out'));
  }
}

const NAME = 'loco-client'; // the same as the panel in OHIF keeps

// Who works here, as they call themselves; with a login the server knows better.
export function clientName() {
  try {
    return localStorage.getItem(NAME) || '';
  } catch {
    return '';
  }
}

export function rememberClient(name) {
  try {
    localStorage.setItem(NAME, name);
  } catch {
    // a browser that stores nothing asks again next time
  }
}
