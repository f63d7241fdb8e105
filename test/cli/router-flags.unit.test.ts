/** The flags of routers: what they ask for, and what they cannot ask for. */

import { expect, test } from 'vitest';
import { routerConfig } from '../../src/cli/router-flags.ts';

test('a modular router has the kernels that were asked for, and no routing replay to leave out', () => {
  const flags = { router: 'modular', routerKernels: 'gated' } as const;
  expect(routerConfig({ ...flags, routingReplay: true })).toEqual({ kind: 'modular', kernels: 'gated' });
  expect(() => routerConfig({ ...flags, routingReplay: false })).toThrow('--router is modular; give monolithic');
});

test('a monolithic router is one kernel, with or without routing replay', () => {
  const flags = { router: 'monolithic', routingReplay: false } as const;
  const expected = { kind: 'monolithic', hasRoutingReplay: false };
  expect(routerConfig({ ...flags, routerKernels: 'fused' })).toEqual(expected);
  expect(() => routerConfig({ ...flags, routerKernels: 'gated' })).toThrow('--router-kernels is gated; give auto');
});
