/** Virtual time: the events that are planned, and the order in which they run. */

/** Events of one instant run in the order of their phase, so that a race is decided the same way on every machine. */
export const Phase = { device: 0, map: 1, worker: 2, wire: 3, client: 4, update: 5, begin: 6 } as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

/** What decides which event runs next: virtual time, or a test that tries every order. */
export interface Clock {
  readonly now: number;
  /** Plans `run` for `time` in ticks; events of one phase and one time run in the order in which they were planned. */
  plan(time: number, phase: Phase, run: () => void): void;
}

type Event = { time: number; order: number; run: () => void };

/** Orders of one phase: events in the order in which they were planned. */
const ORDERS_PER_PHASE = 2 ** 40;

/** A binary heap keyed (time, phase, id); ids count up as events are planned. Time is in ticks and never runs back. */
export class EventHeap implements Clock {
  readonly #heap: Event[] = [];
  #now = 0;
  #nextId = 0;

  get now(): number {
    return this.#now;
  }

  get length(): number {
    return this.#heap.length;
  }

  /** Plans `run` for `time`, or for this instant if that has passed. */
  plan(time: number, phase: Phase, run: () => void): void {
    const event: Event = { time: Math.max(time, this.#now), order: phase * ORDERS_PER_PHASE + this.#nextId, run };
    this.#nextId += 1;
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent]!;
      if (!comesBefore(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  /** Runs the next event and moves the clock to it. `false`: there is none. */
  runNext(): boolean {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined) return false;
    const last = heap.pop()!;
    if (last !== first) this.#sink(last);
    this.#now = first.time;
    first.run();
    return true;
  }

  #sink(event: Event): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && comesBefore(heap[child + 1]!, heap[child]!)) child += 1;
      const below = heap[child]!;
      if (!comesBefore(below, event)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = event;
  }
}

function comesBefore(a: Event, b: Event): boolean {
  return a.time !== b.time ? a.time < b.time : a.order < b.order;
}
