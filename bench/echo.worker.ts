/** Answers what it gets: `transferred` by hand-over, anything else by structured clone. */

import { move } from 'piscina';

export default function echo(task: Readonly<{ buffer: ArrayBuffer; transferred: boolean }>): unknown {
  return task.transferred ? move(task.buffer) : task.buffer;
}
