/**
 * Worker threads that are stuck. None is terminated: a pending map would take the process along. Each is kept
 * referenced until it returns; then it closes its device and ends.
 */

/** By the object that owns the thread. */
const abandoned: Map<object, Promise<void>> = new Map();

/** `ended` must not reject. */
export function abandon(thread: object, ended: Promise<void>): void {
  abandoned.set(
    thread,
    ended.then(() => void abandoned.delete(thread)),
  );
}

export function numAbandonedThreads(): number {
  return abandoned.size;
}

/** Resolves when every thread that is abandoned has ended. */
export async function abandonedThreadsEnded(): Promise<void> {
  await Promise.all(abandoned.values());
}
