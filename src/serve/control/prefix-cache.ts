/** Forgets cached prefixes and their rows. */

import type { LiveEngine } from '../../host/live-engine.ts';

/** `null`: the cache is empty. Else what holds its blocks; nothing has changed then. */
export function resetPrefixCache(engine: LiveEngine, resetRunning: boolean): string | null {
  if (engine.resetPrefixCache(resetRunning)) return null;
  const { numRunning, numWaitingForRemoteKvs, numKeptBlocks } = engine.stats();
  const holders = [
    [numRunning, 'running requests'],
    [numWaitingForRemoteKvs, 'requests whose KV is being loaded'],
    [numKeptBlocks, 'blocks kept for other engines'],
  ] as const;
  const shown = holders
    .filter(([count]) => count > 0)
    .map(([count, what]) => `${count} ${what}`)
    .join(', ');
  const hint = resetRunning ? '' : ', or with reset_running_requests=true, which computes running requests anew';
  return `the prefix cache was not reset: its blocks are held by ${shown}; ask again once they are free${hint}`;
}
