/** Where a rank of one stage leaves hidden states for the rank of its number in the next. */

import { RoutedExpertsError } from '../../../contract/errors.ts';

/** What stands in a place's first word. */
const State = { empty: 0, full: 1, closed: 2 } as const;

/** State, step id, number of words. */
const PLACE_HEADER = 3;

export type LinkSizes = Readonly<{
  /** Links of one stage to the next: one for each tensor-parallel rank. */
  tensorParallel: number;
  numStages: number;
  /** Steps that are in flight at once. */
  depth: number;
  maxNumBatchedTokens: number;
}>;

/**
 *     link      stage s, tensor rank t ─▶ stage s + 1, tensor rank t        one sender, one reader
 *     places    [ state │ step │ n │ n words … ][ … ]                       `depth` of them, used in turn
 *
 * Both ends count the steps that run requests. Step n lies in place n modulo depth: at most `depth` steps are in
 * flight, and a step's place has been read before the engine begins a step that needs it again. So nobody waits to
 * write.
 * The words may be shared by threads; over a plain array the links run without one.
 */
export class StageLinks {
  readonly words: Int32Array;
  readonly #sizes: LinkSizes;
  readonly #placeWords: number;

  constructor(sizes: LinkSizes, words: Int32Array) {
    this.#sizes = sizes;
    this.#placeWords = placeWords(sizes);
    this.words = words;
  }

  static numWords(sizes: LinkSizes): number {
    return numLinks(sizes) * sizes.depth * placeWords(sizes);
  }

  /** The end behind which stage `stage + 1` reads. `null`: there is no stage behind it. */
  sender(stage: number, tensorRank: number): LinkEnd | null {
    const { numStages, tensorParallel } = this.#sizes;
    return stage < numStages - 1 ? this.#end(stage * tensorParallel + tensorRank) : null;
  }

  /** `null`: there is no stage before it. */
  reader(stage: number, tensorRank: number): LinkEnd | null {
    return stage === 0 ? null : this.sender(stage - 1, tensorRank);
  }

  /** Nothing will come any more. Returns the words that readers may wait at. */
  close(): readonly number[] {
    const states: number[] = [];
    for (let at = 0; at < this.words.length; at += this.#placeWords) {
      Atomics.store(this.words, at, State.closed);
      states.push(at);
    }
    return states;
  }

  #end(link: number): LinkEnd {
    const { depth } = this.#sizes;
    return new LinkEnd(this.words, { first: link * depth * this.#placeWords, depth, placeWords: this.#placeWords });
  }
}

type Places = Readonly<{ first: number; depth: number; placeWords: number }>;

/** One end of a link, which counts its steps. */
export class LinkEnd {
  readonly words: Int32Array;
  readonly #places: Places;
  #numSteps = 0;

  constructor(words: Int32Array, places: Places) {
    this.words = words;
    this.#places = places;
  }

  /** The word whose change from `EMPTY` tells that the next step has come, or that none will. */
  get stateWord(): number {
    const { first, depth, placeWords: length } = this.#places;
    return first + (this.#numSteps % depth) * length;
  }

  static readonly EMPTY: number = State.empty;

  /** Nothing has come for the next step. */
  get isEmpty(): boolean {
    return Atomics.load(this.words, this.stateWord) === State.empty;
  }

  /**
   * Leaves `hidden` for the reader; its state word is to be notified. Throws INVARIANT if the place has not been read.
   */
  send(stepId: number, hidden: Uint32Array): void {
    const at = this.stateWord;
    const state = Atomics.load(this.words, at);
    if (state === State.closed) return;
    if (state === State.full) throw RoutedExpertsError.of('INVARIANT', `step ${stepId} finds its place in a link full`);
    this.words[at + 1] = stepId;
    this.words[at + 2] = hidden.length;
    this.words.set(hidden, at + PLACE_HEADER);
    Atomics.store(this.words, at, State.full);
    this.#numSteps += 1;
  }

  /** What has come for the step, copied; `null`: nothing yet. Throws INVARIANT for another step, or a closed link. */
  take(stepId: number): Uint32Array<ArrayBuffer> | null {
    const at = this.stateWord;
    const state = Atomics.load(this.words, at);
    if (state === State.empty) return null;
    const found = this.words[at + 1]!;
    if (state === State.closed || found !== stepId) {
      const what = state === State.closed ? 'the link is closed' : `those of step ${found} came`;
      throw RoutedExpertsError.of('INVARIANT', `no hidden states for step ${stepId} from the stage before: ${what}`);
    }
    const from = at + PLACE_HEADER;
    const hidden = Uint32Array.from(this.words.subarray(from, from + this.words[at + 2]!));
    Atomics.store(this.words, at, State.empty);
    this.#numSteps += 1;
    return hidden;
  }

  /** The step before could not be run: none will come. Returns the words that the reader may wait at. */
  close(): readonly number[] {
    const { first, depth, placeWords: length } = this.#places;
    const states = Array.from({ length: depth }, (_, place) => first + place * length);
    for (const at of states) Atomics.store(this.words, at, State.closed);
    return states;
  }
}

function placeWords({ maxNumBatchedTokens }: LinkSizes): number {
  return PLACE_HEADER + 2 * maxNumBatchedTokens;
}

function numLinks({ numStages, tensorParallel }: LinkSizes): number {
  return Math.max(0, numStages - 1) * tensorParallel;
}
