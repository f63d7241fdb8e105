/** What each rank and each engine of a group does, and since when: for the report of a group that stands still. */

/**
 * `idle`: has no step; `sizes`: waits for the others to come to their passes; `pass`: runs a step's pass; `barrier`:
 * has run it and waits for the others; `results`: brings the step's results.
 */
const ACTIVITIES = ['idle', 'sizes', 'pass', 'barrier', 'results'] as const;
export type Activity = (typeof ACTIVITIES)[number];

/** In place of a step's number: an idle engine runs a pass because others do. */
export const DUMMY_STEP = -1;

/** Of the lock of `shm-flock`. */
const LOCK_STATES = ['none', 'waits', 'holds'] as const;
export type LockState = (typeof LOCK_STATES)[number];

/** Times in ms since the group's start. */
export type ActorState = Readonly<{
  activity: Activity;
  since: number;
  stepId: number;
  lock: LockState;
  lockSince: number;
}>;

/**
 *     actor     rank 0 … numRanks - 1 │ engine 0 … numEngines - 1
 *     of each   activity · since · stepId · lock · lockSince
 */
const ACTOR_WORDS = 5;

/** Each actor writes its own words, and any thread reads them: a report may be some microseconds old in parts. */
export class ActivityBoard {
  readonly #words: Int32Array;

  constructor(words: Int32Array) {
    this.#words = words;
  }

  static numWords(numActors: number): number {
    return ACTOR_WORDS * numActors;
  }

  note(actor: number, activity: Activity, stepId: number, nowMs: number): void {
    const at = ACTOR_WORDS * actor;
    Atomics.store(this.#words, at, ACTIVITIES.indexOf(activity));
    Atomics.store(this.#words, at + 1, nowMs);
    Atomics.store(this.#words, at + 2, stepId);
  }

  noteLock(actor: number, lock: LockState, nowMs: number): void {
    const at = ACTOR_WORDS * actor;
    Atomics.store(this.#words, at + 3, LOCK_STATES.indexOf(lock));
    Atomics.store(this.#words, at + 4, nowMs);
  }

  stateOf(actor: number): ActorState {
    const [activity, since, stepId, lock, lockSince] = Array.from({ length: ACTOR_WORDS }, (_, i) =>
      Atomics.load(this.#words, ACTOR_WORDS * actor + i),
    ) as [number, number, number, number, number];
    return { activity: ACTIVITIES[activity]!, since, stepId, lock: LOCK_STATES[lock]!, lockSince };
  }
}
