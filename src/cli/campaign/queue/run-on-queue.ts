/**
 * A campaign on a queue: puts its shards there, and takes results away when they are kept in the campaign's file.
 *
 * ```
 *   unfinished shards ──put──▶ queue ──▶ workers        a shard is there once: its job is named after it
 *   Campaign, file ◀──take─── results ◀──┘             kept first, then taken away
 * ```
 *
 * Redis may forget everything. Nothing is lost by it: what has no result is put there again.
 */

import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { CampaignRun } from '../core/campaign-run.ts';
import { endsWithin } from './ends-within.ts';
import { KEY_PREFIX, type QueueServer } from './queue-server.ts';
import { jobId, jobOptions, queueName, shardOf, showLane, type Lane, type ShardJob } from './shard-queue.ts';

/** Shards that lie in the queue at a time: work for the threads of many machines. */
const MOST_IN_QUEUE = 2000;

/** Results that are read at a time. */
const MOST_RESULTS = 100;

const POLL_MS = 200;
const NOTICE_MS = 2000;
/** The shards are put there again, whether anybody noticed a loss or not. */
const PUT_AGAIN_MS = 30_000;
const CLOSE_MS = 5000;

/** What the queue is told of a campaign. `patience` is in seconds. */
type OnQueue = Lane & Readonly<{ id: string; kind: string; patience: number; server: QueueServer }>;

/** Rejects with SHARD_FAILED and CAMPAIGN_STANDS. */
export async function runOnQueue<Task, Result>(run: CampaignRun<Task, Result>, to: OnQueue): Promise<void> {
  const { address, keepsJobs } = to.server;
  process.stderr.write(
    `campaign ${to.id}: ${run.tasks.length} shards at ${address}; workers: ${workCommand(to)}\n` +
      (keepsJobs
        ? ''
        : `${address} forgets its jobs when it restarts (appendonly no); they are put there again then\n`),
  );
  const shards = new QueuedShards(run, to);
  try {
    await shards.untilDone();
  } finally {
    await endsWithin(shards.close(), CLOSE_MS);
  }
}

class QueuedShards<Task, Result> {
  readonly #run: CampaignRun<Task, Result>;
  readonly #to: OnQueue;
  readonly #queue: Queue<ShardJob>;
  /** Shards that were put into the queue, as far as Redis remembers. */
  readonly #put: Set<number> = new Set();
  #putAt: number = performance.now();
  #lookedAt = -Infinity;
  /** In which what failed when this campaign ran before is tried again. */
  #isFirstRound = true;
  #workers = 'no worker';
  /** Of the last command that failed. */
  #problem = '';

  constructor(run: CampaignRun<Task, Result>, to: OnQueue) {
    this.#run = run;
    this.#to = to;
    this.#queue = new Queue(queueName(to), {
      connection: { ...to.server.connection, commandTimeout: CLOSE_MS },
      prefix: KEY_PREFIX,
    });
    // The server tells of its loss itself.
    this.#queue.on('error', () => undefined);
    to.server.onReconnect(() => this.#put.clear());
  }

  async untilDone(): Promise<void> {
    const { campaign, signal } = this.#run;
    const { id, patience, server } = this.#to;
    let newsAt = performance.now();
    while (!campaign.isComplete && !signal.aborted) {
      // A command to a server that is gone would only wait.
      const numTaken = server.lostForMs > 0 ? 0 : await this.#goRound();
      if (numTaken > 0) newsAt = performance.now();
      if (performance.now() - newsAt > 1000 * patience) {
        throw RoutedExpertsError.of('CAMPAIGN_STANDS', id, patience, this.#whyItStands());
      }
      if (numTaken < MOST_RESULTS) await sleep(POLL_MS);
    }
  }

  /** Does all that is to be done at the queue. Resolves with the number of results that came. */
  async #goRound(): Promise<number> {
    const { campaign } = this.#run;
    const now = performance.now();
    try {
      if (now - this.#lookedAt > NOTICE_MS) {
        await this.#lookAround();
        this.#lookedAt = now;
      }
      if (now - this.#putAt > PUT_AGAIN_MS) {
        this.#put.clear();
        this.#putAt = now;
      }
      const failure = await this.#takeFailures();
      if (failure !== null && !this.#isFirstRound) {
        throw RoutedExpertsError.of('SHARD_FAILED', this.#to.id, failure.shard, failure.reason);
      }
      this.#isFirstRound = false;
      const numTaken = await this.#takeResults();
      if (!campaign.isComplete) await this.#putShards();
      return numTaken;
    } catch (error) {
      if (error instanceof RoutedExpertsError) throw error;
      this.#problem = (error as Error).message;
      this.#put.clear();
      return 0;
    }
  }

  /** Takes finished shards of this campaign away. Resolves with their number. */
  async #takeResults(): Promise<number> {
    const { id } = this.#to;
    const ofCampaign = (job: string): boolean => shardOf(job, id) !== null;
    const completed = (await this.#queue.getRanges(['completed'], 0, -1)).filter(ofCampaign).slice(0, MOST_RESULTS);
    const jobs = await Promise.all(completed.map((job) => this.#queue.getJob(job)));
    for (const job of jobs) {
      if (job?.id === undefined) continue;
      this.#run.onResult(shardOf(job.id, id)!, job.returnvalue as Result);
    }
    await Promise.all(completed.map((job) => this.#takeAway(job)));
    return completed.length;
  }

  /** Takes the shards that failed for good away. Resolves with the first that is needed. */
  async #takeFailures(): Promise<{ shard: number; reason: string } | null> {
    const failures: { shard: number; reason: string }[] = [];
    for (const job of await this.#queue.getRanges(['failed'], 0, -1)) {
      const shard = shardOf(job, this.#to.id);
      if (shard === null) continue;
      const reason = (await this.#queue.getJob(job))?.failedReason ?? 'no reason is known';
      await this.#takeAway(job);
      if (this.#run.campaign.isNeeded(shard)) failures.push({ shard, reason });
    }
    return failures.toSorted((a, b) => a.shard - b.shard)[0] ?? null;
  }

  async #takeAway(job: string): Promise<void> {
    await this.#queue.remove(job);
    this.#put.delete(shardOf(job, this.#to.id)!);
  }

  /** Puts the next shards into the queue, and takes back what is not needed any more. */
  async #putShards(): Promise<void> {
    const { campaign, tasks } = this.#run;
    const { id, kind } = this.#to;
    for (const shard of this.#put) {
      if (campaign.isNeeded(shard)) continue;
      await this.#queue.remove(jobId(id, shard));
      this.#put.delete(shard);
    }
    const jobs: Parameters<Queue<ShardJob>['addBulk']>[0] = [];
    let numInQueue = 0;
    for (const shard of campaign.unfinished()) {
      if (numInQueue === MOST_IN_QUEUE) break;
      numInQueue += 1;
      if (this.#put.has(shard)) continue;
      this.#put.add(shard);
      jobs.push({ name: kind, data: { kind, task: tasks[shard]! }, opts: jobOptions(id, shard) });
    }
    if (jobs.length > 0) await this.#queue.addBulk(jobs);
  }

  async #lookAround(): Promise<void> {
    const build = showLane(this.#to);
    await this.#to.server.leaveNotice('campaign', this.#to.id, { build, host: hostname() });
    const workers = [...(await this.#to.server.notices('worker')).values()];
    const numFit = workers.filter((worker) => worker.build === build).length;
    const others = workers.filter((worker) => worker.build !== build);
    const other =
      others.length === 0 ? '' : `; ${others.length} of another build, on ${others[0]!.host}: ${others[0]!.build}`;
    this.#workers = `${numFit === 0 ? 'no' : numFit} worker${numFit === 1 ? '' : 's'} of ${build}${other}`;
    this.#run.note(`workers: ${numFit}${other}`);
  }

  #whyItStands(): string {
    const { address, lostForMs, lastProblem } = this.#to.server;
    if (lostForMs > 0) return `${address} is gone (${lastProblem}); start it again`;
    const problem = this.#problem === '' ? '' : ` (last problem: ${this.#problem})`;
    return `${this.#workers}${problem}; start "${workCommand(this.#to)}" from that commit`;
  }

  /** Takes shards back that no worker has begun. */
  async close(): Promise<void> {
    if (this.#to.server.lostForMs > 0) {
      // There is nobody to take leave of. Workers may run some shards for nobody.
      this.#queue.disconnect().catch(() => undefined);
      return;
    }
    await Promise.all([...this.#put].map((shard) => this.#queue.remove(jobId(this.#to.id, shard))));
    await this.#to.server.takeNoticeAway('campaign', this.#to.id);
    await this.#queue.close();
  }
}

function workCommand({ server, measures }: OnQueue): string {
  return `routed-experts work --queue ${server.address}${measures ? ' --bench' : ''}`;
}
