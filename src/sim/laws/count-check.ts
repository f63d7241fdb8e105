/**
 * Checks conservation and bounds: requests, blocks and bytes are counted after every call of a driver, and once more
 * after the drain.
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { EngineCore } from '../../engine/engine-core.ts';
import { rowShape } from '../../capture/row-shape.ts';
import type { Judge } from './judge.ts';
import type { PlanCheck } from './plan-check.ts';
import type { Scenario } from '../scenario.ts';
import type { TrackedRequest } from './tracked-request.ts';

export type Counted = Readonly<{
  scenario: Scenario;
  engine: EngineCore;
  half: CaptureEngineHalf | null;
  plans: PlanCheck;
  requests: readonly TrackedRequest[];
  judge: Judge;
}>;

export class CountCheck {
  readonly #counted: Counted;

  constructor(counted: Counted) {
    this.#counted = counted;
  }

  /** Called after every step, and after every other call that can end a request. Plans have checks of their own. */
  check(numAlive: number): void {
    const { engine, plans, judge } = this.#counted;
    engine.checkIntegrity();
    const stats = engine.stats();
    const numWaiting = stats.numWaiting + stats.numWaitingForRemoteKvs;
    if (numWaiting + stats.numRunning !== numAlive) {
      judge.wrong('L3', `${numWaiting} requests wait and ${stats.numRunning} run, but ${numAlive} are alive`);
    }
    plans.checkBlocks(stats.numUsedBlocks, stats.numFreeBlocks);
    if (stats.capture === null) return;
    if (stats.capture.requests > numAlive) {
      judge.wrong('L7', `the engine half holds ${stats.capture.requests} requests, ${numAlive} are alive`);
    }
    const most = this.#mostBytes();
    if (stats.capture.bytes > most) {
      judge.wrong('L7', `the engine half holds ${stats.capture.bytes} bytes; live tokens account for ${most}`);
    }
  }

  /** All requests are over: nothing may be left of them (L7). */
  checkDrained(): void {
    const { engine, half, plans, judge } = this.#counted;
    const { numUsedBlocks } = engine.stats();
    if (numUsedBlocks !== 0) judge.wrong('L7', `${numUsedBlocks} KV blocks are held after the drain`);
    if (plans.numUntold > 0) {
      judge.wrong('L7', `${plans.numUntold} ended requests were never told to the workers`);
    }
    // Rows that live with cached blocks go with them.
    engine.resetPrefixCache({ resetRunning: false });
    const counts: CaptureLiveCounts = half?.liveCounts() ?? { requests: 0, bytes: 0 };
    const cachedBytes = counts.cachedBytes ?? 0;
    if (counts.requests !== 0 || counts.bytes !== 0 || cachedBytes !== 0) {
      judge.wrong(
        'L7',
        `the engine half holds ${counts.requests} requests, ${counts.bytes} bytes and ${cachedBytes} of cached ` +
          'blocks after the drain',
      );
    }
  }

  /** The bound: rows of every KV slot twice, and rows of every live token and the block that it begins. */
  #mostBytes(): number {
    const { scenario, requests } = this.#counted;
    const { model, engine } = scenario;
    let numRows = 2 * engine.numBlocks * engine.blockSize;
    for (const request of requests) {
      if (request.isAlive) numRows += request.flags.length + engine.blockSize;
    }
    return numRows * rowShape(model, 'int32').bytesPerRow;
  }
}
