/** A Redis or Valkey of a test's own, on a free port of the loopback interface. */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { Redis } from 'ioredis';

/** The server there is; null: none. */
export const redisBinary: string | null =
  ['redis-server', 'valkey-server'].find((name) => spawnSync(name, ['--version']).status === 0) ?? null;

if (redisBinary === null) {
  process.stderr.write('SKIPPED: campaigns on a queue: there is no redis-server and no valkey-server on the PATH\n');
}

const REPLY_MS = 20_000;

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export class RedisServer {
  readonly url: string;
  readonly #flags: readonly string[];
  #process: ChildProcess | null = null;

  private constructor(port: number, folder: string, appendOnly: boolean) {
    this.url = `redis://127.0.0.1:${port}`;
    const flags = { port, bind: '127.0.0.1', save: '', appendonly: appendOnly ? 'yes' : 'no', dir: folder };
    this.#flags = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
  }

  /** `appendOnly`: whether it keeps its data over a restart. */
  static async start(folder: string, { appendOnly }: Readonly<{ appendOnly: boolean }>): Promise<RedisServer> {
    const server = new RedisServer(await freePort(), folder, appendOnly);
    await server.#begin();
    return server;
  }

  async #begin(): Promise<void> {
    this.#process = spawn(redisBinary!, this.#flags, { stdio: 'ignore' });
    // It refuses connections before it listens, and commands while it loads its data.
    await this.#ask((client) => client.ping());
  }

  keys(pattern: string): Promise<string[]> {
    return this.#ask((client) => client.keys(pattern));
  }

  async #ask<T>(question: (client: Redis) => Promise<T>): Promise<T> {
    const client = new Redis(this.url, { retryStrategy: () => 20, maxRetriesPerRequest: null });
    client.on('error', () => undefined);
    const timer = setTimeout(() => client.disconnect(), REPLY_MS);
    try {
      return await question(client);
    } finally {
      clearTimeout(timer);
      client.disconnect();
    }
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.#begin();
  }

  async stop(): Promise<void> {
    const running = this.#process;
    this.#process = null;
    if (running === null || running.exitCode !== null) return;
    const ended = once(running, 'exit');
    running.kill('SIGTERM');
    await ended;
  }
}
