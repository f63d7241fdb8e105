/**
 * The Redis or Valkey that a queue lies on: whether it is there and fit, for how long it has been gone, and who else is
 * at it. BullMQ has connections of its own.
 */

import type { RedisOptions } from 'bullmq';
import { Redis } from 'ioredis';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { queueAddress } from '../queue-address.ts';

/** Of all keys, BullMQ's among them. */
export const KEY_PREFIX = 'routed-experts';

/** BullMQ needs its sorted sets and streams. */
const OLDEST_MAJOR = 5;

/** For a connection, and for a command. */
const REPLY_MS = 5000;
const RETRY_MS = 500;

/** What is not said again for so long is gone. */
const NOTICE_SECONDS = 15;

export class QueueServer {
  /** Without a password. */
  readonly address: string;
  /** For BullMQ. */
  readonly connection: RedisOptions;
  readonly #client: Redis;
  readonly #reconnected: Set<() => void> = new Set();
  #info = '';
  #problem = '';
  #lostAt: number | null = null;

  private constructor(url: string, replyMs: number) {
    this.address = queueAddress(url);
    this.connection = { url, connectTimeout: REPLY_MS, retryStrategy: () => RETRY_MS, maxRetriesPerRequest: null };
    this.#client = new Redis(url, {
      lazyConnect: true,
      connectTimeout: replyMs,
      commandTimeout: replyMs,
      maxRetriesPerRequest: null,
      retryStrategy: () => RETRY_MS,
    });
    this.#client.on('error', (error: Error) => {
      this.#problem = problemOf(error);
    });
    this.#client.on('close', () => {
      this.#lostAt ??= performance.now();
    });
    this.#client.on('ready', () => {
      this.#lostAt = null;
      for (const listener of this.#reconnected) listener();
    });
  }

  /**
   * Rejects with NO_QUEUE where there is no server, another kind of server, one that is too old, or that is silent for
   * `replyMs`.
   */
  static async connect(url: string, replyMs: number = REPLY_MS): Promise<QueueServer> {
    const server = new QueueServer(url, replyMs);
    try {
      await server.#greet();
      return server;
    } catch (error) {
      server.close();
      if (error instanceof RoutedExpertsError) throw error;
      const problem = server.#problem === '' ? problemOf(error as Error) : server.#problem;
      throw server.problem(`${problem}; start a Redis or Valkey there, or give the --queue where one runs`);
    }
  }

  async #greet(): Promise<void> {
    await this.#client.connect();
    const info = await this.#client.info();
    const version = /^(?:valkey|redis)_version:(.*?)\r?$/m.exec(info)?.[1] ?? 'unknown';
    if (!(Number.parseInt(version, 10) >= OLDEST_MAJOR)) {
      throw this.problem(`its version is ${version}; BullMQ needs Redis ${OLDEST_MAJOR} or newer`);
    }
    this.#info = info;
  }

  problem(what: string): RoutedExpertsError {
    return RoutedExpertsError.of('NO_QUEUE', this.address, what);
  }

  /** Whether it keeps its jobs on a disk, and so over a restart. */
  get keepsJobs(): boolean {
    return /^aof_enabled:1/m.test(this.#info);
  }

  /** Since when the server is gone, in milliseconds; 0 while it is there. */
  get lostForMs(): number {
    return this.#lostAt === null ? 0 : performance.now() - this.#lostAt;
  }

  /** Why the server is gone. */
  get lastProblem(): string {
    return this.#problem;
  }

  /** Calls back when the server is there again: it may have forgotten everything. */
  onReconnect(listener: () => void): void {
    this.#reconnected.add(listener);
  }

  /** Leaves a notice of a worker or a campaign, which lasts while it is left again and again. */
  async leaveNotice(kind: NoticeKind, id: string, notice: Notice): Promise<void> {
    await this.#client.sadd(noticeKey(kind), id);
    await this.#client.set(noticeKey(kind, id), JSON.stringify(notice), 'EX', NOTICE_SECONDS);
  }

  async takeNoticeAway(kind: NoticeKind, id: string): Promise<void> {
    await this.#client.del(noticeKey(kind, id));
  }

  /** By id. */
  async notices(kind: NoticeKind): Promise<Map<string, Notice>> {
    const notices = new Map<string, Notice>();
    for (const id of await this.#client.smembers(noticeKey(kind))) {
      const text = await this.#client.get(noticeKey(kind, id));
      if (text === null) await this.#client.srem(noticeKey(kind), id);
      else notices.set(id, JSON.parse(text) as Notice);
    }
    return notices;
  }

  close(): void {
    this.#client.disconnect();
  }
}

type NoticeKind = 'worker' | 'campaign';

export type Notice = Readonly<{ build: string; host: string }>;

/** Without an id the key of all ids. */
function noticeKey(kind: NoticeKind, ...id: readonly [string?]): string {
  return [KEY_PREFIX, kind, ...id].join(':');
}

/** An error of several addresses has no message of its own. */
function problemOf(error: Error & { code?: string; errors?: readonly Error[] }): string {
  return error.message || error.errors?.[0]?.message || error.code || error.name;
}
