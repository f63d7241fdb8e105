/** An engine's part in a lockstep group: what it owes the others, and what it hears of them. */

import type { LockstepConfig } from '../../contract/config.ts';
import { EnginePasses } from '../pipeline/lockstep/engine-passes.ts';
import type { LockstepGroup } from '../pipeline/lockstep/lockstep-group.ts';
import { giveUp } from './lockstep-member.ts';
import { groupOf } from './shared-lockstep.ts';

export class EngineMember {
  readonly #group: LockstepGroup;
  readonly #passes: EnginePasses;
  #onEvent: () => void = () => {};
  #isClosed = false;

  constructor(config: LockstepConfig, numRanks: number) {
    this.#group = groupOf(config, numRanks);
    this.#passes = this.#group.enginePasses(config.engine);
    void this.#listen();
  }

  /** Called after each thing that an engine without work has to hear of; takes the place of the one before. */
  set onEvent(listener: () => void) {
    this.#onEvent = listener;
  }

  /** See `EnginePasses`. */
  get numOwed(): number {
    return this.#passes.numOwed;
  }

  get isGroupDrained(): boolean {
    return this.#passes.isGroupDrained;
  }

  /** A rank has waited too long, or another engine has ended for good. */
  get isGivenUp(): boolean {
    return this.#group.passes.isGivenUp;
  }

  begin(): void {
    this.#passes.begin();
    this.#notify();
  }

  drain(): void {
    this.#passes.drain();
    this.#notify();
  }

  /** This engine has ended for good, and no pass will. */
  giveUp(): void {
    giveUp(this.#group);
    this.#passes.announce();
    this.#notify();
  }

  close(): void {
    this.#isClosed = true;
    this.#notify();
  }

  #notify(): void {
    Atomics.notify(this.#passes.words, EnginePasses.EVENT_WORD);
  }

  async #listen(): Promise<void> {
    while (!this.#isClosed) {
      const wait = Atomics.waitAsync(this.#passes.words, EnginePasses.EVENT_WORD, this.#passes.numEvents);
      if (wait.async) await wait.value;
      this.#onEvent();
    }
  }
}
