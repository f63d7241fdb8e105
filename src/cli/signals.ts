/** The signals that end a server. */

/** Resolves with the next SIGTERM or SIGINT, which then does not end the process. */
export function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const heard = (signal: NodeJS.Signals): void => {
      process.off('SIGTERM', heard);
      process.off('SIGINT', heard);
      resolve(signal);
    };
    process.on('SIGTERM', heard);
    process.on('SIGINT', heard);
  });
}
