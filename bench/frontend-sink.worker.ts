/** Takes what an engine sends to an API server, and drops it. */

import { parentPort } from 'node:worker_threads';
import { Pull } from 'zeromq';

const pull = new Pull({ receiveHighWaterMark: 0 });
await pull.bind('tcp://127.0.0.1:*');
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
parentPort!.postMessage(pull.lastEndpoint);
parentPort!.once('message', () => pull.close());
for await (const frames of pull) void frames;
