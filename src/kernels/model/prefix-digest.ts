/** The hidden state behind each token of one sequence: the device's, in O(1) a token and without routing. */

import { hiddenX, hiddenY, keyBase, keyX, keyY, termX, termY } from './mix/mix.ts';

/** Takes a sequence token by token. Both lanes of the hidden state are 32-bit patterns as signed numbers. */
export class PrefixDigest {
  #position = 0;
  #sumX = 0;
  #sumY = 0;
  #hiddenX = 0;
  #hiddenY = 0;

  /** Tokens taken so far: the position of the next. */
  get position(): number {
    return this.#position;
  }

  get hiddenX(): number {
    return this.#hiddenX;
  }

  get hiddenY(): number {
    return this.#hiddenY;
  }

  /** Takes the next token. `epoch`: of the weights that computed its key. */
  push(token: number, epoch: number): void {
    const position = this.#position;
    const base = keyBase(position, epoch);
    this.#sumX = (this.#sumX + termX(keyX(token, base), position)) | 0;
    this.#sumY = (this.#sumY + termY(keyY(token, base), position)) | 0;
    this.#hiddenX = hiddenX(this.#sumX);
    this.#hiddenY = hiddenY(this.#sumY, this.#hiddenX);
    this.#position = position + 1;
  }

  /** Back to an empty sequence. */
  reset(): void {
    this.#position = 0;
    this.#sumX = 0;
    this.#sumY = 0;
  }
}
