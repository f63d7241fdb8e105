/** Utility calls from their arrival to their reply. A pause is replied to when it is complete; all others at once. */

import { Pause, type PauseRequest } from './pause.ts';
import type { SessionEngine } from './session-engine.ts';
import { callUtility, LATER, type UtilityTarget } from './utilities.ts';
import type { UtilityCall } from './wire/frontend-message.ts';
import type { UtilityReply } from './wire/output-message.ts';

export interface CallPorts {
  readonly engine: SessionEngine;
  readonly reply: (clientIndex: number, reply: UtilityReply) => void;
  /** Ends every request, held ones too; their clients are told. */
  readonly abortAll: () => void;
  /** Gives the engine the requests that came during the pause. */
  readonly submitHeld: () => void;
  /** The prefix cache was reset. */
  readonly onReset: () => void;
  readonly warn: (text: string) => void;
}

/** What calls are told of the engine. */
type EngineOfCalls = Readonly<{ numWorkers: number; blockSize: number; weightVersion: string }>;

const STOPPING = 'Server shutting down';

export class Calls {
  readonly #ports: CallPorts;
  readonly #pause: Pause = new Pause();
  readonly #target: UtilityTarget;
  #isStopping = false;

  constructor(engine: EngineOfCalls, ports: CallPorts) {
    const pause = this.#pause;
    this.#ports = ports;
    this.#target = {
      numWorkers: engine.numWorkers,
      blockSize: engine.blockSize,
      weightVersion: engine.weightVersion,
      get isPaused() {
        return pause.isPaused;
      },
      get isSleeping() {
        return pause.isSleeping;
      },
      pause: (request) => this.#begin(request),
      resume: () => this.#resume(),
      wakeUp: (tags) => {
        if (pause.wakeUp(tags)) this.#resume();
      },
      resetPrefixCache: (resetRunning) => {
        const isReset = ports.engine.resetPrefixCache(resetRunning);
        if (isReset) ports.onReset();
        return isReset;
      },
    };
  }

  /** New requests are held. */
  get isPaused(): boolean {
    return this.#pause.isPaused;
  }

  take(call: UtilityCall): void {
    const { callId, clientIndex, method } = call;
    if (this.#isStopping) {
      this.#ports.reply(clientIndex, { callId, failure: STOPPING });
      return;
    }
    try {
      const result = callUtility(this.#target, call);
      if (result !== LATER) this.#ports.reply(clientIndex, { callId, result });
    } catch (error) {
      const problem = (error as Error).message;
      this.#ports.warn(`call of "${method}" failed: ${problem}`);
      this.#fail(call, problem);
    }
  }

  /** Replies to the pauses that are complete. `numRequests`: that the engine has. */
  settle(numRequests: number): void {
    if (!this.#pause.isPending) return;
    const numInFlight = this.#ports.engine.stats().numStepsInFlight;
    for (const request of this.#pause.takeComplete({ numRequests, numInFlight })) this.#complete(request);
  }

  forgetClient(clientIndex: number): void {
    this.#pause.forgetClient(clientIndex);
  }

  /** Every call that waits, and every later one, fails. */
  stop(): void {
    this.#isStopping = true;
    for (const { call } of this.#pause.resume()) {
      this.#ports.reply(call.clientIndex, { callId: call.callId, failure: STOPPING });
    }
  }

  #begin(request: PauseRequest): void {
    this.#pause.begin(request);
    if (request.mode === 'abort') this.#ports.abortAll();
    if (request.mode === 'keep') this.#ports.engine.pause();
  }

  #complete({ call, clearsCache }: PauseRequest): void {
    try {
      if (clearsCache && !this.#target.resetPrefixCache(true)) {
        this.#ports.warn('the prefix cache is as it was: KV is being loaded, or kept for another engine');
      }
      this.#ports.reply(call.clientIndex, { callId: call.callId, result: null });
    } catch (error) {
      // The engine is dead.
      this.#fail(call, (error as Error).message);
    }
  }

  #resume(): void {
    for (const { call } of this.#pause.resume()) this.#fail(call, 'the engine was resumed before it had paused');
    this.#ports.engine.resume();
    this.#ports.submitHeld();
  }

  #fail({ clientIndex, callId, method }: UtilityCall, problem: string): void {
    this.#ports.reply(clientIndex, { callId, failure: `Call to ${method} method failed: ${problem}` });
  }
}
