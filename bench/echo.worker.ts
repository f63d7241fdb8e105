/** Sends back what it gets: `transferred` by transfer, anything else by structured clone. */

import { move } from 'piscina';

export default function echo(task: Readonly<{ buffer: ArrayBuffer; transferred: boolean }>): unknown {
  return task.transferred ? move(task.buffer) : task.buffer;
}
