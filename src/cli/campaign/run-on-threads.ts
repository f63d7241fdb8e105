/** A campaign on threads of this process: each takes the next shard when it is done with its last. */

import type { CampaignRun } from './core/campaign-run.ts';

export async function runOnThreads<Task, Result>(
  { campaign, tasks, openRunner, onResult, signal }: CampaignRun<Task, Result>,
  jobs: number,
): Promise<void> {
  const runner = openRunner(jobs);
  const left = campaign.unfinished();
  const takeShards = async (): Promise<void> => {
    for (const shard of left) {
      onResult(shard, await runner.run(tasks[shard]!));
      if (signal.aborted) return;
    }
  };
  try {
    await Promise.all(Array.from({ length: jobs }, takeShards));
  } finally {
    await runner.close();
  }
}
