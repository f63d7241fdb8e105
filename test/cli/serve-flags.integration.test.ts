// `serve` and `proxy` with flags that cannot be: exit code 2, and a message that names the flag; with --help: 0.

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { runHere, runProcess } from './run-cli.ts';

const backends = ['--prefill', 'http://127.0.0.1:8100', '--decode', 'http://127.0.0.1:8200'];
const tiny = ['serve', '--device', 'cpu', '--model', 'tiny'];

test.each([
  ['no server', ['proxy'], /--prefill/],
  ['no server that decodes', ['proxy', '--prefill', 'http://127.0.0.1:8100'], /--decode/],
  ['no URL', ['proxy', '--prefill', '127.0.0.1:8100', '--decode', 'http://127.0.0.1:8200'], /--prefill.*like http/],
  ['a path', ['proxy', '--prefill', 'http://127.0.0.1:8100/v1', '--decode', 'http://127.0.0.1:8200'], /like http/],
  ['a server twice', ['proxy', ...backends, '--decode', 'http://127.0.0.1:8200/'], /twice/],
  ['an unknown way', ['proxy', ...backends, '--pd-rows', 'guess'], /with-kv, carry, splice/],
  ['no time', ['proxy', ...backends, '--decode-timeout', '0'], /--decode-timeout/],
  ['an unknown role', [...tiny, '--role', 'master'], /prefill, decode, both/],
  ['a way without a role', [...tiny, '--pd-rows', 'carry'], /--role too, or leave out --pd-rows/],
  ['a peer without a role', [...tiny, '--kv-peer', '10.0.0.1'], /leave out --kv-peer/],
  ['an address for everybody', [...tiny, '--role', 'both', '--kv-host', '0.0.0.0'], /kv-host is 0\.0\.0\.0/],
  ['KV shared and kept', [...tiny, '--role', 'both', '--kv-offload-blocks', '9'], /--kv-offload-blocks is 9; give 0 w/],
  ['files without memory', [...tiny, '--kv-offload-dir', 'x'], /--kv-offload-dir is x; give it with --kv-offload-bl/],
  ['a pool that is too small', [...tiny, '--num-blocks', '2'], /--num-blocks is 2; give at least \d+, so that/],
  ['an unknown design', [...tiny, '--design', 'magic'], /unknown design "magic"; choose one of: off, shm-flock/],
  ['KV for a design that takes none', [...tiny, '--design', 'slot-store', '--role', 'both'], /--design is slot-store/],
  ['a policy of another design', [...tiny, '--design', 'off', '--prefix-rows', 'share'], /--prefix-rows is share/],
  [
    'a design of a router that writes no rows',
    [...tiny, '--design', 'host-cache', '--router', 'monolithic', '--no-routing-replay'],
    /design "host-cache" returns routed experts, and a monolithic router/,
  ],
  ['a rate of no drafts', [...tiny, '--draft-acceptance-rate', '1'], /--num-speculative-tokens is 0; give at least 1/],
  ['a rate over 1', [...tiny, '--num-speculative-tokens', '2', '--draft-acceptance-rate', '1.5'], /in \[0, 1\]/],
  ['a step time of no clock', [...tiny, '--step-time', '5 ms'], /--device is cpu; give clock, or leave out --step/],
  ['a negative epoch', [...tiny, '--epoch', '-1'], /--epoch/],
] as const)('%s', async (_, args, message) => {
  const { code, stderr } = await runHere(...args);
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
});

test('a port that is taken', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const { code, stderr } = await runProcess('proxy', ...backends, '--port', String(port));
  expect(stderr).toMatch(/cannot listen on 127\.0\.0\.1:\d+: .*EADDRINUSE/);
  expect(code).toBe(2);
});

test('help', async () => {
  const { code, stdout } = await runHere('proxy', '--help');
  expect(stdout).toContain('--health-interval');
  expect(code).toBe(0);
});
