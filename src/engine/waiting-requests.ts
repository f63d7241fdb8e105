/** The requests that wait to be admitted, in the order in which the scheduler looks at them. */

import type { SchedulingPolicy } from '../contract/config.ts';
import { comesBefore, createRequestQueue, type RequestQueue } from './request-queue.ts';
import { QueueName, type Request } from './request.ts';

/**
 *     skipped   looked at first: passed over in an earlier step, since their outputs were in flight
 *     waiting   all others
 *     held      taken out of both while one step is scheduled, then put in front of the skipped ones
 */
export class WaitingRequests {
  readonly #policy: SchedulingPolicy;
  readonly #waiting: RequestQueue;
  readonly #skipped: RequestQueue;
  readonly #held: Request[] = [];

  constructor(policy: SchedulingPolicy) {
    this.#policy = policy;
    this.#waiting = createRequestQueue(policy, QueueName.waiting);
    this.#skipped = createRequestQueue(policy, QueueName.skipped);
  }

  get length(): number {
    return this.#waiting.length + this.#skipped.length;
  }

  add(request: Request): void {
    this.#waiting.add(request);
  }

  prepend(request: Request): void {
    this.#waiting.prepend(request);
  }

  /** Returns the request that is looked at next, or `null`. */
  peek(): Request | null {
    const skipped = this.#skipped.peek();
    if (skipped === null) return this.#waiting.peek();
    if (this.#policy === 'fcfs') return skipped;
    const waiting = this.#waiting.peek();
    return waiting !== null && comesBefore(waiting, skipped) ? waiting : skipped;
  }

  /** Takes out a request, if it waits. */
  remove(request: Request): void {
    if (request.queueName === QueueName.waiting) this.#waiting.remove(request);
    else if (request.queueName === QueueName.skipped) this.#skipped.remove(request);
  }

  /** The request is not looked at again before `returnHeld`. */
  hold(request: Request): void {
    this.remove(request);
    this.#held.push(request);
  }

  returnHeld(): void {
    for (let request = this.#held.pop(); request !== undefined; request = this.#held.pop())
      this.#skipped.prepend(request);
  }

  /** In order. For checks. */
  toArray(): Request[] {
    return [...this.#skipped.toArray(), ...this.#waiting.toArray()];
  }
}
