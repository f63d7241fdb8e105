/** What else a machine did while it was measured. */

/** Counters since some moment in the past, and what is so at this one. */
export type LoadSample = Readonly<{
  /** Of all processors, by the machine's own count: what they did, what they could have done, what they were denied. */
  busyMs: number;
  totalMs: number;
  /** Time in which a virtual processor had work and the host ran something else. */
  stolenMs: number;
  /** Processor time of this process, all threads. */
  ownMs: number;
  /** Threads that ran or waited for a processor, this one among them. */
  runnable: number;
}>;

/** Shares of all processors' time, and a mean over the samples. */
export type OtherLoad = Readonly<{ busyShare: number; stolenShare: number; runnable: number }>;

/** Samples are taken between runs, when this process runs one thread: the other runnable ones are not its own. */
export function otherLoad(samples: readonly LoadSample[]): OtherLoad | null {
  const [first, last] = [samples[0], samples.at(-1)];
  if (first === undefined || last === undefined || last.totalMs <= first.totalMs) return null;
  const total = last.totalMs - first.totalMs;
  const others = last.busyMs - first.busyMs - (last.ownMs - first.ownMs);
  return {
    busyShare: Math.max(0, others / total),
    stolenShare: (last.stolenMs - first.stolenMs) / total,
    runnable: samples.reduce((sum, { runnable }) => sum + runnable - 1, 0) / samples.length,
  };
}
