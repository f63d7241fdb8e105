/**
 * Requests that wait, in the order in which the scheduler looks at them. Adding, taking and removing from the middle
 * (an abort) are O(1) for `fcfs` and O(log n) for `priority`. After `vllm/v1/core/sched/request_queue.py`.
 */

import type { SchedulingPolicy } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { QueueName, type Request } from './request.ts';

export interface RequestQueue {
  readonly length: number;
  /** Adds a request at the end; under `priority` at the place of its rank. */
  add(request: Request): void;
  /** Adds a request at the front; under `priority` at the place of its rank. */
  prepend(request: Request): void;
  /** The next request, or `null`. */
  peek(): Request | null;
  /** Takes a request out of any place. Throws if this queue does not hold it. */
  remove(request: Request): void;
  /** For checks, in order: O(n log n). */
  toArray(): Request[];
}

/** The order of `priority`: smaller number, then earlier arrival, then id, then order of admission. */
export const comesBefore = (a: Request, b: Request): boolean => {
  if (a.priority !== b.priority) return a.priority < b.priority;
  if (a.arrivalTime !== b.arrivalTime) return a.arrivalTime < b.arrivalTime;
  if (a.requestId !== b.requestId) return a.requestId < b.requestId;
  return a.index < b.index;
};

const notHeld = (request: Request): Error =>
  RoutedExpertsError.of('INVARIANT', `request "${request.requestId}" is not in the queue it is taken from`);

/** A doubly linked list through the requests themselves. */
export class FcfsRequestQueue implements RequestQueue {
  readonly #name: QueueName;
  #first: Request | null = null;
  #last: Request | null = null;
  #length = 0;

  constructor(name: QueueName) {
    this.#name = name;
  }

  get length(): number {
    return this.#length;
  }

  add(request: Request): void {
    request.queueName = this.#name;
    request.queuePrevious = this.#last;
    request.queueNext = null;
    if (this.#last === null) this.#first = request;
    else this.#last.queueNext = request;
    this.#last = request;
    this.#length += 1;
  }

  prepend(request: Request): void {
    request.queueName = this.#name;
    request.queuePrevious = null;
    request.queueNext = this.#first;
    if (this.#first === null) this.#last = request;
    else this.#first.queuePrevious = request;
    this.#first = request;
    this.#length += 1;
  }

  peek(): Request | null {
    return this.#first;
  }

  remove(request: Request): void {
    if (request.queueName !== this.#name) throw notHeld(request);
    const { queuePrevious, queueNext } = request;
    if (queuePrevious === null) this.#first = queueNext;
    else queuePrevious.queueNext = queueNext;
    if (queueNext === null) this.#last = queuePrevious;
    else queueNext.queuePrevious = queuePrevious;
    request.queueName = QueueName.none;
    request.queuePrevious = null;
    request.queueNext = null;
    this.#length -= 1;
  }

  toArray(): Request[] {
    const requests: Request[] = [];
    for (let request = this.#first; request !== null; request = request.queueNext) requests.push(request);
    return requests;
  }
}

/** A binary heap; each request holds its index in it. */
export class PriorityRequestQueue implements RequestQueue {
  readonly #name: QueueName;
  readonly #heap: Request[] = [];

  constructor(name: QueueName) {
    this.#name = name;
  }

  get length(): number {
    return this.#heap.length;
  }

  add(request: Request): void {
    request.queueName = this.#name;
    this.#heap.push(request);
    this.#rise(request, this.#heap.length - 1);
  }

  prepend(request: Request): void {
    this.add(request);
  }

  peek(): Request | null {
    return this.#heap[0] ?? null;
  }

  remove(request: Request): void {
    const at = request.heapIndex;
    if (request.queueName !== this.#name || this.#heap[at] !== request) throw notHeld(request);
    const last = this.#heap.pop()!;
    if (last !== request) {
      if (at > 0 && comesBefore(last, this.#heap[(at - 1) >> 1]!)) this.#rise(last, at);
      else this.#sink(last, at);
    }
    request.queueName = QueueName.none;
    request.heapIndex = -1;
  }

  toArray(): Request[] {
    return this.#heap.toSorted((a, b) => (comesBefore(a, b) ? -1 : 1));
  }

  #rise(request: Request, from: number): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = this.#heap[parent]!;
      if (!comesBefore(request, above)) break;
      this.#heap[at] = above;
      above.heapIndex = at;
      at = parent;
    }
    this.#heap[at] = request;
    request.heapIndex = at;
  }

  #sink(request: Request, from: number): void {
    let at = from;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= this.#heap.length) break;
      if (child + 1 < this.#heap.length && comesBefore(this.#heap[child + 1]!, this.#heap[child]!)) child += 1;
      const below = this.#heap[child]!;
      if (!comesBefore(below, request)) break;
      this.#heap[at] = below;
      below.heapIndex = at;
      at = child;
    }
    this.#heap[at] = request;
    request.heapIndex = at;
  }
}

export const createRequestQueue = (policy: SchedulingPolicy, name: QueueName): RequestQueue =>
  policy === 'priority' ? new PriorityRequestQueue(name) : new FcfsRequestQueue(name);
