/**
 * Made-up log-probabilities. The model computes its next token and no probabilities, and trainers want some: so each
 * token gets one that is a fixed function of the tokens before it, of the token, and of the weights (epochs) that
 * computed the tokens before it.
 *
 *     rank r of token t   (t − next token) mod vocabulary: the next token has rank 0
 *     logprob             −(ln(π²/6) + offset) − slope · ln(1 + r)
 *
 * Offset, in [0, 1), and slope, in [2, 3), are functions of the prefix.
 *
 * All are finite and below 0, fall with the rank, and are no more than 1 together. A token that was sampled and comes
 * back in a prompt has the same one; two servers with equal weights agree to the last bit.
 */

import { nextToken, scramble } from './mix/mix.ts';
import { PrefixDigest } from './prefix-digest.ts';

/** A token and its made-up log-probability, an f32. */
export type TokenLogprob = Readonly<{ token: number; logprob: number }>;

const LOG_OF_ALL = Math.log(Math.PI ** 2 / 6);
const TWO_TO_32 = 2 ** 32;

/** Of the tokens that can follow one prefix, by its hidden state. */
export class NextLogprobs {
  readonly #vocabSize: number;
  readonly #next: number;
  readonly #offset: number;
  readonly #slope: number;

  constructor({ hiddenX, hiddenY }: Pick<PrefixDigest, 'hiddenX' | 'hiddenY'>, vocabSize: number) {
    this.#vocabSize = vocabSize;
    this.#next = nextToken(hiddenX, hiddenY, vocabSize);
    this.#offset = (scramble(hiddenX ^ 0x2545f491) >>> 0) / TWO_TO_32;
    this.#slope = 2 + (scramble(hiddenY ^ 0x6c078965) >>> 0) / TWO_TO_32;
  }

  of(token: number): number {
    return this.#ofRank(this.rankOf(token));
  }

  /** 0: the likeliest. */
  rankOf(token: number): number {
    return (token - this.#next + this.#vocabSize) % this.#vocabSize;
  }

  /** The `count` likeliest, in falling order; fewer if the vocabulary is smaller. */
  top(count: number): TokenLogprob[] {
    return Array.from({ length: Math.min(count, this.#vocabSize) }, (_, rank) => ({
      token: (this.#next + rank) % this.#vocabSize,
      logprob: this.#ofRank(rank),
    }));
  }

  #ofRank(rank: number): number {
    return Math.fround(-(LOG_OF_ALL + this.#offset) - this.#slope * Math.log(1 + rank));
  }
}

/** Of one sequence, token by token. */
export class SequenceLogprobs {
  readonly #digest = new PrefixDigest();
  readonly #vocabSize: number;
  readonly #epochAt: (position: number) => number;

  /** `epochAt`: of the weights that computed the key of a position. */
  constructor(vocabSize: number, epochAt: (position: number) => number) {
    this.#vocabSize = vocabSize;
    this.#epochAt = epochAt;
  }

  /** Tokens taken so far. */
  get position(): number {
    return this.#digest.position;
  }

  /** What could follow the tokens taken so far; `null` at the beginning, since no pass has an empty prefix. */
  next(): NextLogprobs | null {
    return this.#digest.position === 0 ? null : new NextLogprobs(this.#digest, this.#vocabSize);
  }

  push(token: number): void {
    this.#digest.push(token, this.#epochAt(this.#digest.position));
  }
}
