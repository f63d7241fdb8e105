/**
 * How often the addon looks whether a map has ended. As long as one is pending it hands a new function to the global
 * `setImmediate`, calls it in the next turn, and again: some 100,000 times a second. That takes a core, and each of
 * these functions has to be finalized: a worker's heap is collected three times a second, for 20 to 60 ms each.
 */

import { LookTimes } from './look-times.ts';

/** Of all reads of this thread. */
export const lookTimes: LookTimes = new LookTimes();

/**
 * From now on the calling thread sleeps between two looks that come long after the latest read has begun. Only for a
 * thread that serves a device and nothing else: whoever calls the global `setImmediate` there waits too.
 */
export function restBetweenLooks(): void {
  const asleep = new Int32Array(new SharedArrayBuffer(4));
  const { setImmediate } = globalThis;
  const resting = (...args: Parameters<typeof setImmediate>): NodeJS.Immediate => {
    const rest = lookTimes.restBefore(performance.now());
    if (rest > 0) Atomics.wait(asleep, 0, 0, rest);
    return setImmediate(...args);
  };
  globalThis.setImmediate = Object.assign(resting, setImmediate);
}
