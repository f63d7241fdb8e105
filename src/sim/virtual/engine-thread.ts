/**
 * The thread of an engine in virtual time: it begins steps as long as there is room for them in the batch queue, takes
 * their outputs in when they have arrived, and may stand still in between. Where `EngineDriver` waits for promises, it
 * plans events. Everything that happens on the thread keeps its order.
 */

import type { BatchQueue } from '../../worker/pipeline/batch-queue.ts';
import type { Flight } from '../flight.ts';
import { Phase, type Clock } from './event-heap.ts';

/** In ticks. */
export type EngineDelays = Readonly<{
  /** Between an event and the step that is begun for it. */
  engine: () => number;
  /** Between an output's arrival and its update. */
  update: () => number;
}>;

export type EngineThreadEvents = Readonly<{
  /** The engine core was called: until when does the thread stand still for it? `null`: it goes on at once. */
  standsUntil: (call: 'begin' | 'finish', flight: Flight | null) => number | null;
  onBegun: (flight: Flight) => void;
  onFinished: (flight: Flight) => void;
  /** The step is behind its update; may make other steps void. */
  onUpdated: (flight: Flight) => void;
}>;

export class EngineThread {
  readonly #queue: BatchQueue<Flight>;
  readonly #clock: Clock;
  readonly #delays: EngineDelays;
  readonly #events: EngineThreadEvents;
  #standsUntil = 0;
  #updateIsPlanned = false;
  #fillIsPlanned = false;

  constructor(queue: BatchQueue<Flight>, clock: Clock, delays: EngineDelays, events: EngineThreadEvents) {
    this.#queue = queue;
    this.#clock = clock;
    this.#delays = delays;
    this.#events = events;
  }

  /** When the thread goes on. */
  get freeAt(): number {
    return Math.max(this.#clock.now, this.#standsUntil);
  }

  /** The engine may have work. */
  wakeUp(): void {
    if (this.#fillIsPlanned || !this.#queue.canBegin) return;
    this.#fillIsPlanned = true;
    this.#clock.plan(this.#clock.now + this.#delays.engine(), Phase.begin, () => this.#fill());
  }

  /** An output that has arrived wakes the thread, whatever `meanwhile` makes of the step. */
  takeInAfter(meanwhile: () => void): void {
    const isDue = this.#queue.canFinish;
    meanwhile();
    if (!isDue || this.#updateIsPlanned) return;
    this.#updateIsPlanned = true;
    this.#clock.plan(this.#clock.now + this.#delays.update(), Phase.update, () => this.#update());
  }

  /** Returns whether the thread stands still; `run` is then planned for when it goes on. */
  waits(phase: Phase, run: () => void): boolean {
    if (this.#clock.now >= this.#standsUntil) return false;
    this.#clock.plan(this.#standsUntil, phase, run);
    return true;
  }

  /** Begins one step if there is room for it in the queue, and looks again a little later. */
  #fill(): void {
    if (this.waits(Phase.begin, () => this.#fill())) return;
    this.#fillIsPlanned = false;
    if (!this.#queue.canBegin) return;
    const flight = this.#queue.begin();
    this.#noteWait('begin', flight);
    if (flight === null) return;
    this.#events.onBegun(flight);
    this.wakeUp();
  }

  #update(): void {
    if (this.waits(Phase.update, () => this.#update())) return;
    this.#updateIsPlanned = false;
    if (!this.#queue.canFinish) return;
    const { step } = this.#queue.finish()!;
    this.#noteWait('finish', step);
    this.#events.onFinished(step);
    this.takeInAfter(() => this.#events.onUpdated(step));
    this.wakeUp();
  }

  #noteWait(call: 'begin' | 'finish', flight: Flight | null): void {
    const until = this.#events.standsUntil(call, flight);
    if (until !== null) this.#standsUntil = until;
  }
}
