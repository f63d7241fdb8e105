/** A campaign on its way, for what carries it out: threads of this process, or workers at a queue. */

import type { Campaign } from './campaign.ts';
import type { TaskRunner } from './kind.ts';

export type CampaignRun<Task, Result> = Readonly<{
  campaign: Campaign<Result>;
  /** By shard. */
  tasks: readonly Task[];
  openRunner: (jobs: number) => TaskRunner<Task, Result>;
  /** Takes a result in. A shard may have several. */
  onResult: (shard: number, result: Result) => void;
  /** Shows a few words beside the progress. */
  note: (text: string) => void;
  /** Asks to end before the campaign is complete. */
  signal: AbortSignal;
}>;
