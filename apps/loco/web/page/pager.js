// Previous and next, over a list of which the server holds all and the page one part.

import { part, setAttribute, setShown, setText } from './dom.js';
import { count } from './format.js';

export class Pager {
  // `turn()` is called when another part is wanted, from `offset` on.
  constructor(node, limit, turn) {
    [this.node, this.limit, this.turn, this.offset, this.matching] = [node, limit, turn, 0, 0];
    part(node, 'previous').addEventListener('click', () => this.by(-limit));
    part(node, 'following').addEventListener('click', () => this.by(limit));
  }

  by(step) {
    const to = this.offset + step;
    if (to >= 0 && to < this.matching) {
      this.offset = to;
      this.turn();
      this.node.parentElement.scrollIntoView();
    }
  }

  // Where we are; false when the list has become shorter than that, and the last part was asked for instead.
  show(matching, shown) {
    this.matching = matching;
    if (!shown && this.offset > 0) {
      this.offset = Math.max(0, Math.floor((matching - 1) / this.limit) * this.limit);
      this.turn();
      return false;
    }
    setShown(this.node, matching > this.limit);
    const last = Math.min(matching, this.offset + this.limit);
    setText(part(this.node, 'where'), `${count(this.offset + 1)} to ${count(last)} of ${count(matching)}`);
    setAttribute(part(this.node, 'previous'), 'aria-disabled', this.offset === 0 ? 'true' : null);
    setAttribute(part(this.node, 'following'), 'aria-disabled', last >= matching ? 'true' : null);
    return true;
  }
}
