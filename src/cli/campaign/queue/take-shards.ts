/**
 * A worker of campaigns: takes shards from a queue and runs them on threads, so that the event loop of this process is
 * free to renew the locks on what it has taken. A worker that dies renews none. Another one takes its shards.
 */

import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'bullmq';
import type { AnyKind, TaskRunner } from '../core/kind.ts';
import { endsWithin } from './ends-within.ts';
import { KEY_PREFIX, QueueServer } from './queue-server.ts';
import { queueName, showLane, type Lane, type ShardJob } from './shard-queue.ts';

/** A shard that ended so many workers ends no more. */
const MOST_LOSSES = 10;

const NOTICE_MS = 2000;
const POLL_MS = 200;
/** For shards that are being run when the worker is asked to end. */
const CLOSE_MS = 30_000;

export type ShardWorkerOptions = Lane &
  Readonly<{
    url: string;
    jobs: number;
    /** A worker that is silent for so many seconds has lost its shards. */
    lostAfter: number;
    /** For how many seconds a server that is gone is waited for. */
    patience: number;
    kindOf: (name: string) => Promise<AnyKind>;
    say: (line: string) => void;
    signal: AbortSignal;
  }>;

/** Takes shards until the signal. Resolves with how many it ran; rejects with NO_QUEUE. */
export async function takeShards(options: ShardWorkerOptions): Promise<number> {
  const { url, jobs, lostAfter, patience, say, signal } = options;
  const server = await QueueServer.connect(url);
  const runners = new Runners(options);
  let numShards = 0;
  const worker = new Worker<ShardJob>(queueName(options), async ({ data }) => runners.run(data), {
    connection: server.connection,
    prefix: KEY_PREFIX,
    concurrency: jobs,
    lockDuration: 1000 * lostAfter,
    stalledInterval: 500 * lostAfter,
    maxStalledCount: MOST_LOSSES,
    // After a loss of the connection. As long as that of the server itself.
    runRetryDelay: 500,
  });
  worker.on('completed', () => {
    numShards += 1;
  });
  worker.on('failed', (job, error) => say(`shard ${job?.id} failed: ${error.message}`));
  // The loss of the server is told of below, and so is its end.
  worker.on('error', () => undefined);
  const id = randomUUID();
  say(`takes shards of ${showLane(options)} from ${server.address}, ${jobs} at a time`);
  try {
    let noticeAt = -Infinity;
    let isLost = false;
    const refused = new Set<string>();
    while (!signal.aborted) {
      if (isLost !== server.lostForMs > 0) {
        isLost = !isLost;
        say(isLost ? `${server.address} is gone; waits for it for ${patience} s` : `${server.address} is there again`);
      }
      if (server.lostForMs > 1000 * patience) throw server.problem(`${server.lastProblem}; gone for ${patience} s`);
      if (!isLost && performance.now() - noticeAt > NOTICE_MS) {
        noticeAt = performance.now();
        await lookAround(server, { id, build: showLane(options), refused, say });
      }
      await sleep(POLL_MS);
    }
    return numShards;
  } finally {
    const hasClosed = await endsWithin(worker.close(server.lostForMs > 0), CLOSE_MS);
    if (!hasClosed) say(`shards are still running after ${CLOSE_MS / 1000} s; another worker takes them`);
    if (server.lostForMs === 0) await server.takeNoticeAway('worker', id).catch(() => undefined);
    server.close();
    await runners.close();
  }
}

type Surroundings = Readonly<{ id: string; build: string; refused: Set<string>; say: (line: string) => void }>;

/** Tells others of this worker, and its user of campaigns that it is of no use to. */
async function lookAround(server: QueueServer, { id, build, refused, say }: Surroundings): Promise<void> {
  try {
    await server.leaveNotice('worker', id, { build, host: hostname() });
    for (const [campaign, notice] of await server.notices('campaign')) {
      if (notice.build === build || refused.has(campaign)) continue;
      refused.add(campaign);
      say(`refuses campaign ${campaign} of ${notice.build}: this is ${build}; start a worker of the former for it`);
    }
  } catch {
    // The server is going; it is looked after elsewhere.
  }
}

/** The threads of each kind of task, opened when its first shard comes. */
class Runners {
  readonly #opened: Map<AnyKind['openRunner'], TaskRunner<unknown, unknown>> = new Map();
  readonly #options: ShardWorkerOptions;

  constructor(options: ShardWorkerOptions) {
    this.#options = options;
  }

  async run({ kind: name, task }: ShardJob): Promise<unknown> {
    const { openRunner } = await this.#options.kindOf(name);
    const runner = this.#opened.get(openRunner) ?? openRunner(this.#options.jobs);
    this.#opened.set(openRunner, runner);
    return runner.run(task);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#opened.values()].map((runner) => runner.close()));
  }
}
