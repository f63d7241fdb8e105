/**
 * Shards as jobs of BullMQ. Each build has a queue of its own: a worker never sees the shard of another commit. So has
 * what is measured: whoever measures runs nothing else.
 */

import type { JobsOptions } from 'bullmq';
import { showBuild, type Build } from '../core/part.ts';

export type ShardJob = Readonly<{ kind: string; task: unknown }>;

/** A shard that throws runs again; a defect of the code throws each time. */
const ATTEMPTS = 3;

/** Results that nobody takes away: the process that ran the campaign is gone for good. */
const KEEP_SECONDS = 7 * 24 * 3600;

/** `measures`: see `CampaignKind`. */
export type Lane = Readonly<{ build: Build; measures: boolean }>;

export function queueName({ build: { version, commit }, measures }: Lane): string {
  return `${measures ? 'benches' : 'shards'}-${version}-${commit}`;
}

/** For messages, and to tell whether a worker is of use to a campaign. */
export function showLane({ build, measures }: Lane): string {
  return `${showBuild(build)}${measures ? ', for benches' : ''}`;
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
