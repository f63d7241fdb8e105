/** The engine's ZeroMQ sockets to one frontend, after INIT: an input and an output for each API server. */

import { Dealer, Push, XSubscriber } from 'zeromq';
import type { FrontendAddresses } from './handshake.ts';
import { SendQueue } from './send-queue.ts';

export interface SocketEvents {
  readonly onMessage: (clientIndex: number, frames: Uint8Array[]) => void;
  readonly onCoordinator: (frames: Uint8Array[]) => void;
  readonly onClientGone: (clientIndex: number) => void;
}

/** As vLLM does: no message is dropped or held back for want of room. */
const SEND_ALL = { sendHighWaterMark: 0 } as const;
const RECEIVE_ALL = { receiveHighWaterMark: 0 } as const;

/** The last words of an engine must come through: so long does a closed output try. */
const LINGER_MS = 4000;

/** How a coordinator's socket subscribes. */
const SUBSCRIBE_ALL = Buffer.from([1]);

export class FrontendSockets {
  readonly #inputs: readonly Dealer[];
  readonly #outputs: readonly (readonly [Push, SendQueue])[];
  readonly #coordinator: Readonly<{ input: XSubscriber; output: readonly [Push, SendQueue] }> | null;
  readonly #timers: Set<NodeJS.Timeout> = new Set();
  readonly #goneAfterMs: number;
  #handshake: Dealer | null = null;
  #isClosed = false;

  /** `goneAfterMs`: an API server whose connection is lost, or never made, for so long is gone. */
  constructor(
    addresses: FrontendAddresses,
    {
      identity,
      readyResponse,
      goneAfterMs,
    }: Readonly<{ identity: Buffer; readyResponse: Uint8Array; goneAfterMs: number }>,
    events: SocketEvents,
  ) {
    this.#goneAfterMs = goneAfterMs;
    this.#outputs = addresses.outputs.map(openOutput);
    this.#inputs = addresses.inputs.map((address, clientIndex) => {
      const input = dealer(identity, { ...SEND_ALL, ...RECEIVE_ALL });
      this.#watch(input, () => events.onClientGone(clientIndex));
      input.connect(address);
      new SendQueue(input).push([readyResponse]);
      void receive(input, (frames) => events.onMessage(clientIndex, frames));
      return input;
    });
    const { coordinator } = addresses;
    if (coordinator === null) this.#coordinator = null;
    else {
      const input = new XSubscriber({ linger: 0, ...RECEIVE_ALL });
      this.#coordinator = { input, output: openOutput(coordinator.output) };
      input.connect(coordinator.input);
      new SendQueue(input).push([SUBSCRIBE_ALL]);
      void receive(input, (frames) => events.onCoordinator(frames));
    }
  }

  send(clientIndex: number, frames: Uint8Array[]): void {
    this.#outputs[clientIndex]![1].push(frames);
  }

  tellCoordinator(frames: Uint8Array[]): void {
    this.#coordinator!.output[1].push(frames);
  }

  /**
   * Takes over the socket of the handshake, until the frontend closes its end. ZeroMQ would connect it again, and say
   * READY to the next frontend.
   */
  keepUntilLost(handshake: Dealer): void {
    this.#handshake = handshake;
    handshake.events.on('disconnect', () => handshake.close());
  }

  /** Hands over what waits, unless the frontend is gone, then closes. Idempotent. */
  async close({ isGone }: Readonly<{ isGone: boolean }>): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#handshake?.close();
    for (const input of this.#inputs) input.close();
    this.#coordinator?.input.close();
    const outputs = [...this.#outputs, ...(this.#coordinator === null ? [] : [this.#coordinator.output])];
    if (!isGone) await Promise.all(outputs.map(([, queue]) => queue.drained()));
    for (const [socket] of outputs) {
      // ZeroMQ would keep the process alive for what nobody takes.
      if (isGone) socket.linger = 0;
      socket.close();
    }
  }

  /** A connection that was lost may come back: ZeroMQ tries again by itself. */
  #watch(input: Dealer, onGone: () => void): void {
    let timer: NodeJS.Timeout | null = null;
    const cancel = (): void => {
      if (timer === null) return;
      clearTimeout(timer);
      this.#timers.delete(timer);
      timer = null;
    };
    const start = (): void => {
      if (this.#isClosed) return;
      cancel();
      timer = setTimeout(onGone, this.#goneAfterMs);
      this.#timers.add(timer);
    };
    input.events.on('handshake', cancel);
    input.events.on('disconnect', start);
    start();
  }
}

/** A DEALER with an identity, which ZeroMQ needs before it connects. */
export function dealer(identity: Buffer, options: ConstructorParameters<typeof Dealer>[0]): Dealer {
  const socket = new Dealer({ linger: 0, ...options });
  // The bytes are no text: the binding takes a buffer too, which its types do not say.
  socket.routingId = identity as unknown as string;
  return socket;
}

function openOutput(address: string): readonly [Push, SendQueue] {
  const socket = new Push({ linger: LINGER_MS, ...SEND_ALL });
  socket.connect(address);
  return [socket, new SendQueue(socket)];
}

/** Ends when the socket is closed. */
async function receive(socket: Dealer | XSubscriber, onFrames: (frames: Uint8Array[]) => void): Promise<void> {
  for await (const frames of socket) onFrames(frames);
}
