/** The shards of `fuzz` and `matrix`: a range of seeds of one design each. */

import { setFlagsFromString } from 'node:v8';
import { Piscina } from 'piscina';
import type { CampaignOptions, CampaignPart } from '../../sim/campaign.ts';
import { moduleBeside } from '../../worker/module-beside.ts';
import type { TaskRunner, TaskSeries } from '../campaign/core/kind.ts';
import type { ModuleDigests } from './module-digests.ts';

export type StormTask = Readonly<{
  design: string;
  /** Of the design's module; null for a design that is built in. */
  digest: string | null;
  from: number;
  to: number;
  options: CampaignOptions;
}>;

/** A quarter of a second. Part of the campaign's hash, so it is one for all machines. */
const SEEDS_PER_TASK = 500;

/** Violations of one design beyond which its other seeds are not worth running. */
const MOST_VIOLATIONS = 50;

/** A series for each design over the seeds from `from` on. */
export function stormSeries(storms: {
  designs: readonly string[];
  modules: ModuleDigests;
  from: number;
  numSeeds: number;
  options: CampaignOptions;
}): TaskSeries<StormTask>[] {
  const { designs, modules, from, numSeeds, options } = storms;
  const end = from + numSeeds;
  return designs.map((design) => ({
    tasks: Array.from({ length: Math.ceil(numSeeds / SEEDS_PER_TASK) }, (_, i) => {
      const first = from + i * SEEDS_PER_TASK;
      const digest = modules[design] ?? null;
      return { design, digest, from: first, to: Math.min(first + SEEDS_PER_TASK, end), options };
    }),
    // Where the first violations of a shard say all, one shard that has some does.
    mostViolations: options.stopAfter > 0 ? 0 : MOST_VIOLATIONS,
  }));
}

export const numStorms = ({ from, to }: StormTask): number => to - from;
export const numViolations = (part: CampaignPart): number => part.violations.length;

/** Runs ranges of seeds on threads. */
export function openStormThreads(jobs: number): TaskRunner<StormTask, CampaignPart> {
  // Storms live short: most of them are over before a young generation of this size is full.
  setFlagsFromString('--min-semi-space-size=16');
  const filename = moduleBeside(import.meta.url, 'seeds.worker').href;
  const pool = new Piscina({ filename, minThreads: jobs, maxThreads: jobs, recordTiming: false });
  return { run: (task) => pool.run(task) as Promise<CampaignPart>, close: () => pool.destroy() };
}
