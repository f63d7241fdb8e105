/** A server that is not there, is no Redis, or is too old: a command says so and ends. */

import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { QueueServer } from '../../../src/cli/campaign/queue/queue-server.ts';
import { runHere } from '../run-cli.ts';
import { freePort } from './redis-server.ts';

const folder = mkdtempSync(join(tmpdir(), 'routed-experts-no-queue-'));
const startFolder = process.cwd();
let server: Server | null = null;

beforeAll(() => process.chdir(folder));
afterEach(() => {
  server?.close();
  server = null;
});
afterAll(() => {
  process.chdir(startFolder);
  rmSync(folder, { recursive: true, force: true });
});

/** A server that replies to each command, by its name, or to none. */
async function startServer(reply: (command: string) => string | null): Promise<string> {
  server = createServer((socket: Socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (data) => {
      // `*n`, then `$length` and the text of each argument; the first is the command.
      for (const [, command] of String(data).matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) {
        const text = reply(command!.toLowerCase());
        if (text !== null) socket.write(text);
      }
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const INFO = 'redis_version:4.0.14\r\nloading:0\r\n';
const oldRedis = (command: string): string =>
  command === 'info'
    ? `$${INFO.length}\r\n${INFO}\r\n`
    : command === 'hello'
      ? "-ERR unknown command 'HELLO'\r\n"
      : '+OK\r\n';

const servers: readonly (readonly [string, () => Promise<string>, RegExp])[] = [
  ['nobody', async () => `redis://127.0.0.1:${await freePort()}`, /ECONNREFUSED.*start a Redis or Valkey there/],
  ['a Redis that is too old', () => startServer(oldRedis), /its version is 4\.0\.14; BullMQ needs Redis 5 or newer/],
  ['a server of another kind', () => startServer(() => 'HTTP/1.1 400 Bad Request\r\n\r\n'), /no queue at redis:/],
];

test.each(servers)('%s', async (_, address, problem) => {
  const url = await address();
  const { code, stderr, stdout } = await runHere('fuzz', '--seeds', '10', '--queue', url);
  expect(stderr).toMatch(problem);
  expect(code).toBe(2);
  expect(stdout).toBe('');
  // A campaign that no queue takes has not begun.
  expect(readdirSync(folder)).toEqual([]);
});

test('a server that is silent', async () => {
  const connected = QueueServer.connect(await startServer(() => null), 300);
  await expect(connected).rejects.toThrow(/no queue at redis:.*Command timed out/);
});

test('a password is shown nowhere', async () => {
  const url = `redis://me:secret@127.0.0.1:${await freePort()}/2`;
  const { stderr } = await runHere('work', '--queue', url);
  expect(stderr).toContain(url.replace('me:secret@', ''));
  expect(stderr).not.toContain('secret');
});
