/**
 * A campaign over threads: seeds are cut into ranges, each a task; the answer does not depend on how many threads there
 * are.
 */

import { setFlagsFromString } from 'node:v8';
import { Piscina } from 'piscina';
import { mergeParts, type CampaignOptions, type CampaignPart } from '../../sim/campaign.ts';
import { moduleBeside } from '../../worker/module-beside.ts';
import type { SeedsTask } from './seeds.worker.ts';

/** Seeds of a task: a quarter of a second. Part of the campaign's hash, so it is one for all machines. */
const SEEDS_PER_TASK = 500;

/** Violations of one design after which its other seeds are not worth running. */
const MOST_VIOLATIONS = 50;

export type CampaignPlan = Readonly<{
  designs: readonly string[];
  from: number;
  numSeeds: number;
  jobs: number;
  options: CampaignOptions;
  onProgress: (scenariosDone: number) => void;
}>;

/** One merged part per design, in the order of `plan.designs`. */
export async function runCampaign(plan: CampaignPlan): Promise<CampaignPart[]> {
  // Storms live short: most of them are over before a young generation of this size is full.
  setFlagsFromString('--min-semi-space-size=16');
  const pool = new Piscina({
    filename: moduleBeside(import.meta.url, 'seeds.worker').href,
    minThreads: plan.jobs,
    maxThreads: plan.jobs,
    recordTiming: false,
  });
  try {
    const answers: CampaignPart[] = [];
    for (const design of plan.designs) answers.push(await runDesign(plan, design, pool));
    return answers;
  } finally {
    await pool.destroy();
  }
}

async function runDesign(plan: CampaignPlan, design: string, pool: Piscina): Promise<CampaignPart> {
  const { from, numSeeds, options, onProgress } = plan;
  const numTasks = Math.ceil(numSeeds / SEEDS_PER_TASK);
  const parts: CampaignPart[] = [];
  let next = 0;
  let numViolations = 0;
  const takeTasks = async (): Promise<void> => {
    // A design that is broken all over is not run to the end.
    while (next < numTasks && numViolations <= MOST_VIOLATIONS) {
      const i = next;
      next += 1;
      const first = from + i * SEEDS_PER_TASK;
      const task: SeedsTask = { design, from: first, to: Math.min(first + SEEDS_PER_TASK, from + numSeeds), options };
      const part = (await pool.run(task)) as CampaignPart;
      parts[i] = part;
      numViolations += part.violations.length;
      onProgress(part.scenarios);
    }
  };
  await Promise.all(Array.from({ length: plan.jobs }, takeTasks));
  return mergeParts(parts);
}
