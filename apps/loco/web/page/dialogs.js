// Questions before something is done. Each resolves when the dialog closes; a refusal of the server is said in the dialog.

import { act, clientName, rememberClient, say } from './actions.js';
import { get } from './api.js';
import { el, part, setShown, setText } from './dom.js';

// Open a dialog; `action` runs on confirm and closes it unless it fails.
function ask(dialog, action) {
  const [confirm, cancel, said] = ['confirm', 'cancel', 'said'].map(name => part(dialog, name));
  const form = dialog.querySelector('form');
  const listening = new AbortController();
  say(said, '');
  const submit = event => {
    event.preventDefault();
    act(confirm, said, async () => {
      const words = await action();
      dialog.close();
      return words;
    });
  };
  form.addEventListener('submit', submit, { signal: listening.signal });
  cancel.addEventListener('click', () => dialog.close(), { signal: listening.signal });
  dialog.addEventListener('close', () => listening.abort(), { once: true });
  dialog.showModal();
}

// "Are you sure?": { title, text, button, action }.
export function confirmed({ title, text, button, action }) {
  const dialog = document.getElementById('confirm-dialog');
  setText(part(dialog, 'title'), title);
  setText(part(dialog, 'text'), text);
  setText(part(dialog, 'confirm'), button);
  ask(dialog, action);
}

// Why an image is passed by: `action(reason, client)`. With a login nobody is asked for a name.
export async function skipped({ image, login, action }) {
  const dialog = document.getElementById('skip-dialog');
  const { reasons } = await get('/loco/skip/reasons');
  setText(part(dialog, 'image'), image);
  setShown(part(dialog, 'who'), !login);
  part(dialog, 'client').value = clientName();
  const legend = dialog.querySelector('legend');
  const choices = reasons.map(({ reason, meaning }, i) => {
    const input = el('input', { type: 'radio', name: 'reason', value: reason, required: true, checked: i === 0 });
    return el('label', {}, input, el('span', {}, reason, el('small', {}, meaning)));
  });
  part(dialog, 'reasons').replaceChildren(legend, ...choices);
  ask(dialog, () => {
    const client = part(dialog, 'client').value.trim();
    if (!login) {
      rememberClient(client);
    }
    return action(dialog.querySelector('[name=reason]:checked').value, client);
  });
}
