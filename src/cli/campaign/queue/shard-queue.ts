/** Shards as jobs of BullMQ. Each build has a queue of its own: a worker never sees the shard of another commit. */

import type { JobsOptions } from 'bullmq';
import type { Build } from '../core/part.ts';

export type ShardJob = Readonly<{ kind: string; task: unknown }>;

/** A shard that throws runs again; a defect of the code throws each time. */
const ATTEMPTS = 3;

/** Results that nobody takes away: the process that ran the campaign is gone for good. */
const KEEP_SECONDS = 7 * 24 * 3600;

export function queueName({ version, commit }: Build): string {
  return `shards-${version}-${commit}`;
}

/** A shard has one name, so that it is in the queue once, however often it is put there. */
export function jobOptions(campaign: string, shard: number): JobsOptions {
  const keep = { age: KEEP_SECONDS };
  return { jobId: jobId(campaign, shard), attempts: ATTEMPTS, removeOnComplete: keep, removeOnFail: keep };
}

export function jobId(campaign: string, shard: number): string {
  return `${campaign}/${shard}`;
}

/** Null for a job of another campaign. */
export function shardOf(id: string, campaign: string): number | null {
  return id.startsWith(`${campaign}/`) ? Number(id.slice(campaign.length + 1)) : null;
}
