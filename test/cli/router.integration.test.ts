// `--router`, `--no-routing-replay` and `--router-kernels` as a user meets them: rows right with either kind and in
// either way, a clear refusal where rows would be zeros.

import { expect, test } from 'vitest';
import { runHere } from './run-cli.ts';

const SMALL = ['--repeats', '1', '--requests', '6', '--ballast-ms', '0', '--opt-in', '1', '--device', 'cpu'];

test('bench --router monolithic: every row right', async () => {
  const flags = ['--model', 'tiny-grouped', '--router', 'monolithic', '--design', 'deltas,shm-flock'];
  const { code, stdout } = await runHere('bench', ...SMALL, ...flags);
  expect(stdout).toContain('monolithic router');
  expect(stdout).toContain('0 mismatched');
  expect(code).toBe(0);
});

test('bench --no-routing-replay: off runs, any other design is refused', async () => {
  const flags = [...SMALL, '--model', 'tiny', '--router', 'monolithic', '--no-routing-replay'];
  expect(await runHere('bench', ...flags, '--design', 'off')).toMatchObject({ code: 0, stderr: '' });
  const refused = await runHere('bench', ...flags, '--design', 'off,deltas');
  expect(refused).toMatchObject({ code: 2, stdout: '' });
  expect(refused.stderr).toMatch(/^error: design "deltas" returns routed experts, .*leave out --no-routing-replay/);
});

test('a modular router has no routing replay to leave out', async () => {
  const { code, stderr } = await runHere('bench', ...SMALL, '--no-routing-replay');
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: 'error: --router is modular; give monolithic with --no-routing-replay\n',
  });
});

test.each(['fused', 'gated'])('bench --router-kernels %s: every row right', async (kernels) => {
  const flags = ['--model', 'tiny-grouped', '--router-kernels', kernels, '--design', 'deltas'];
  const { code, stdout } = await runHere('bench', ...SMALL, ...flags);
  expect(stdout).toContain('0 mismatched');
  expect(code).toBe(0);
});

test('a monolithic router in two kernels is refused, by bench and by serve', async () => {
  const flags = ['--router', 'monolithic', '--router-kernels', 'gated', '--device', 'cpu', '--model', 'tiny'];
  for (const command of ['bench', 'serve']) {
    expect(await runHere(command, ...flags)).toEqual({
      code: 2,
      stdout: '',
      stderr: 'error: --router-kernels is gated; give auto or fused with --router monolithic, which is one kernel\n',
    });
  }
});

test('serve --router monolithic --no-routing-replay does not start', async () => {
  const flags = ['--router', 'monolithic', '--no-routing-replay', '--device', 'cpu', '--model', 'tiny', '--port', '0'];
  const { code, stdout, stderr } = await runHere('serve', ...flags);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toMatch(/^error: design "deltas" returns routed experts/);
});
