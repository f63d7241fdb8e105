/** What tests of lost workers share: a request, what must come of it, and a fault. */

import { expect } from 'vitest';
import type { WorkerFault } from '../../src/contract/config.ts';
import type { Server } from '../../src/serve/server.ts';
import type { Answer } from '../serve/helpers.ts';
import { decodeNpy, expectOracle, post } from '../serve/helpers.ts';
import { withRows } from '../serve/pd-helpers.ts';

export function ask(server: Server, prompt: readonly number[]): Promise<Answer> {
  return post(server, '/v1/completions', { prompt, max_tokens: 10, ...withRows });
}

export function expectRight(prompt: readonly number[], { status, body }: Answer): void {
  expect(status).toBe(200);
  expectOracle(prompt, body.choices[0]!.token_ids, decodeNpy(body.choices[0]!.routed_experts));
}

/** Does not say whether the fault is armed: a thread that ends at once can take its reply with it. */
export async function inject(server: Server, fault: WorkerFault): Promise<void> {
  await server.host.engine.injectFault(fault).catch(() => {});
}
