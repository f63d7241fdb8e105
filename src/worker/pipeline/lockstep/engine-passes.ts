/**
 * Which passes an engine owes its group. The ranks of all engines run every pass together, so an engine that begins one
 * calls the others to it; one that has no step of its own runs a dummy (vLLM's `execute_dummy_batch`). vLLM's engines
 * learn once in 32 steps that all of them are idle; here nobody calls then.
 */

/**
 *     word   0           1           2            3 …                   3 + engines …
 *            numEvents   numCalled   numDrained   passes that each      how often each
 *                                                 engine has begun      engine has drained
 *
 * Invariant: no engine has begun more than `numCalled` passes.
 */
const NUM_EVENTS = 0;
const NUM_CALLED = 1;
const NUM_DRAINED = 2;
const BEGUN = 3;

/** As one of the engines sees it. */
export class EnginePasses {
  /** The word that changes with everything that an idle engine has to hear of. */
  static readonly EVENT_WORD: number = NUM_EVENTS;
  readonly words: Int32Array;
  readonly #numEngines: number;
  readonly #engine: number;

  /** `words`: zeros at first. */
  constructor(words: Int32Array, numEngines: number, engine: number) {
    this.words = words;
    this.#numEngines = numEngines;
    this.#engine = engine;
  }

  static numWords(numEngines: number): number {
    return BEGUN + 2 * numEngines;
  }

  get numEvents(): number {
    return Atomics.load(this.words, NUM_EVENTS);
  }

  /** Passes that another engine has begun and this one has not. */
  get numOwed(): number {
    return Atomics.load(this.words, NUM_CALLED) - Atomics.load(this.words, BEGUN + this.#engine);
  }

  /** Every engine has drained as often as this one: no pass is under way, and none is called until one has work. */
  get isGroupDrained(): boolean {
    const numDrains = Atomics.load(this.words, BEGUN + this.#numEngines + this.#engine);
    return Atomics.load(this.words, NUM_DRAINED) >= numDrains * this.#numEngines;
  }

  /** The engine begins a pass, with a step of its own or with a dummy. */
  begin(): void {
    const numBegun = Atomics.add(this.words, BEGUN + this.#engine, 1) + 1;
    let numCalled = Atomics.load(this.words, NUM_CALLED);
    while (numCalled < numBegun) {
      const found = Atomics.compareExchange(this.words, NUM_CALLED, numCalled, numBegun);
      if (found === numCalled) this.announce();
      numCalled = found === numCalled ? numBegun : found;
    }
  }

  /** The engine has nothing left to do. */
  drain(): void {
    Atomics.add(this.words, BEGUN + this.#numEngines + this.#engine, 1);
    Atomics.add(this.words, NUM_DRAINED, 1);
    this.announce();
  }

  /** There is something to hear of. */
  announce(): void {
    Atomics.add(this.words, NUM_EVENTS, 1);
  }
}
