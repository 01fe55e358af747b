/**
 * A stream of text, split into lines.
 *
 * @module
 */
/** How {@linkcode TextLineStream} splits. */
export interface TextLineStreamOptions {
  /** Whether a lone carriage return ends a line. */
  allowCR?: boolean;
}

/** Splits text into lines, without their ends: line feed, or carriage return and line feed. */
export class TextLineStream extends TransformStream<string, string> {
  /** @param options How to split. */
  constructor(options: TextLineStreamOptions = { allowCR: false }) {
    const allowCR = options.allowCR ?? false;
    let rest = "";
    super({
      transform(chunk, controller) {
        // A line that spans many chunks is only joined once its end is seen.
        let text = rest + chunk;
        for (;;) {
          const lf = text.indexOf("\n");
          if (allowCR) {
            const cr = text.indexOf("\r");
            if (cr !== -1 && cr !== text.length - 1 && (lf === -1 || lf - 1 > cr)) {
              controller.enqueue(text.slice(0, cr));
              text = text.slice(cr + 1);
              continue;
            }
          }
          if (lf === -1) break;
          const end = text[lf - 1] === "\r" ? lf - 1 : lf;
          controller.enqueue(text.slice(0, end));
          text = text.slice(lf + 1);
        }
        rest = text;
      },
      flush(controller) {
        if (rest === "") return;
        if (allowCR && rest.endsWith("\r")) controller.enqueue(rest.slice(0, -1));
        else controller.enqueue(rest);
      },
    });
  }
}
