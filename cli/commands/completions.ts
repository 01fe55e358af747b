/**
 * The subcommand `completions`.
 *
 * @module
 */
import { type Command, COMMON, defineCommand, EXIT, type Option } from "../command.ts";
import { COMMANDS } from "../commands.ts";
import { UsageError } from "../errors.ts";
import { didYouMean } from "../suggest.ts";

type Generator = (commands: readonly Command[]) => string;

function options(command: Command): readonly Option[] {
  return [...command.options, ...COMMON];
}

/** Text between single quotes of a POSIX shell. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function names(option: Option): string[] {
  return [`--${option.name}`, ...(option.short ? [`-${option.short}`] : [])];
}

function bashValues(option: Option): string {
  const pattern = names(option).join(" | ");
  if (option.choices) {
    const files = option.open ? '; COMPREPLY+=($(compgen -f -- "$cur"))' : "";
    const words = option.choices.join(" ");
    return `      ${pattern}) COMPREPLY=($(compgen -W ${
      quote(words)
    } -- "$cur"))${files}; return ;;`;
  }
  const action = option.kind === "file" ? `COMPREPLY=($(compgen -f -- "$cur")); ` : "";
  return `      ${pattern}) ${action}return ;;`;
}

function bashCommand(command: Command): string {
  const all = options(command);
  const valued = all.filter((o) => o.kind !== "flag");
  const words = all.flatMap(names).join(" ");
  const operands = operandWords(command).join(" ");
  const previous = valued.length === 0 ? [] : [
    `    case "$prev" in`,
    ...valued.map(bashValues),
    `    esac`,
  ];
  return [
    `  '${command.name}')`,
    ...previous,
    `    if [[ $cur == -* ]]; then`,
    `      COMPREPLY=($(compgen -W ${quote(words)} -- "$cur"))`,
    `    else`,
    `      COMPREPLY=($(compgen -W ${quote(operands)} -- "$cur"))`,
    ...(command.operands.noFiles ? [] : [`      COMPREPLY+=($(compgen -f -- "$cur"))`]),
    `    fi`,
    `    ;;`,
  ].join("\n");
}

/** Commands whose name has two words. */
function twoWords(commands: readonly Command[]): string[] {
  return commands.map((c) => c.name).filter((name) => name.includes(" "));
}

/** The others. */
function oneWord(commands: readonly Command[]): readonly Command[] {
  return commands.filter((c) => !c.name.includes(" "));
}

/** What can follow a command's first word: operands, and the second words of such names. */
function operandWords(command: Command): string[] {
  const seconds = COMMANDS.map((c) => c.name.split(" ")).filter(([first]) => first === command.name)
    .flatMap(([, second]) => second ?? []);
  return [...seconds, ...command.operands.choices ?? []];
}

function bash(commands: readonly Command[]): string {
  return `# shellcheck shell=bash disable=SC2207
# Completion of vmtape for bash: source it from ~/.bashrc.
_vmtape() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} command='' word
  COMPREPLY=()
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ $word != -* ]]; then
      command=$word
      break
    fi
  done
  case "$command \${COMP_WORDS[2]-}" in
  ${twoWords(commands).map((name) => `'${name}'`).join(" | ")})
    ((COMP_CWORD > 2)) && command="$command \${COMP_WORDS[2]}"
    ;;
  esac
  case "$command" in
${commands.map(bashCommand).join("\n")}
  *)
    COMPREPLY=($(compgen -W ${
    quote([...oneWord(commands).map((c) => c.name), "help", ...COMMON.flatMap(names)].join(" "))
  } -- "$cur"))
    ;;
  esac
}
complete -o filenames -F _vmtape vmtape
`;
}

/** A description within a zsh specification. */
function zshText(text: string): string {
  return text.replace(/[[\]:\\]/g, (c) => `\\${c}`);
}

function zshOption(option: Option): string[] {
  const action = option.choices
    ? `(${option.choices.join(" ")})`
    : option.kind === "file"
    ? "_files"
    : "";
  const value = option.kind === "flag"
    ? ""
    : `:${zshText((option.value ?? option.kind).toLowerCase())}:${action}`;
  return names(option).map((name) => quote(`${name}[${zshText(option.doc)}]${value}`));
}

function zshCommand(command: Command): string {
  const choices = operandWords(command);
  const actions = [
    ...(command.operands.noFiles ? [] : ["_files"]),
    ...(choices.length > 0 ? [`compadd ${choices.join(" ")}`] : []),
  ];
  const rest = actions.length > 0 ? [`'*:operand:{${actions.join("; ")}}'`] : [];
  const specs = [...options(command).flatMap(zshOption), ...rest];
  return `    '${command.name}')\n      _arguments ${
    specs.map((s) => `\\\n        ${s}`).join(" ")
  }\n      ;;`;
}

function zsh(commands: readonly Command[]): string {
  return `#compdef vmtape
# Completion of vmtape for zsh: save it as _vmtape in a folder of $fpath.
_vmtape() {
  local -a commands
  commands=(
${oneWord(commands).map((c) => `    ${quote(`${c.name}:${zshText(c.summary)}`)}`).join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  case "$words[2] $words[3]" in
  ${twoWords(commands).map((name) => `'${name}'`).join(" | ")})
    if (( CURRENT > 3 )); then
      command="$words[2] $words[3]"
      shift words
      (( CURRENT-- ))
    fi
    ;;
  esac
  shift words
  (( CURRENT-- ))
  case "$command" in
${commands.map(zshCommand).join("\n")}
  esac
}
compdef _vmtape vmtape
`;
}

/** Text between single quotes of fish. */
function fishQuote(text: string): string {
  return `'${text.replace(/[\\']/g, (c) => `\\${c}`)}'`;
}

/** Whether the command line holds a command, as fish asks it. */
function fishSeen(command: Command): string {
  const words = command.name.split(" ").map((word) => `__fish_seen_subcommand_from ${word}`);
  return `-n ${fishQuote(words.join("; and "))}`;
}

function fishOption(command: Command, option: Option): string {
  const parts = [
    `complete -c vmtape ${fishSeen(command)}`,
    `-l ${option.name}`,
  ];
  if (option.short) parts.push(`-s ${option.short}`);
  if (option.choices) parts.push(`-x -a ${fishQuote(option.choices.join(" "))}`);
  else if (option.kind === "file") parts.push("-r -F");
  else if (option.kind !== "flag") parts.push("-x");
  parts.push(`-d ${fishQuote(option.doc)}`);
  return parts.join(" ");
}

function fish(commands: readonly Command[]): string {
  const lines = [
    "# Completion of vmtape for fish: save it as ~/.config/fish/completions/vmtape.fish.",
  ];
  for (const c of commands) {
    if (!c.name.includes(" ")) {
      lines.push(
        `complete -c vmtape -n __fish_use_subcommand -f -a ${c.name} -d ${fishQuote(c.summary)}`,
      );
    }
    lines.push(...options(c).map((o) => fishOption(c, o)));
    const words = operandWords(c).join(" ");
    if (words !== "") lines.push(`complete -c vmtape ${fishSeen(c)} -a ${fishQuote(words)}`);
    if (c.operands.noFiles) lines.push(`complete -c vmtape ${fishSeen(c)} -f`);
  }
  return lines.join("\n") + "\n";
}

const SHELLS: Readonly<Record<string, Generator>> = { bash, zsh, fish };

/** Prints a script that completes commands, options and their values. */
export const completions = defineCommand({
  name: "completions",
  summary: "Print a completion script for a shell",
  operands: { usage: "SHELL", min: 1, max: 1, choices: Object.keys(SHELLS), noFiles: true },
  options: [],
  examples: [
    { line: "completions bash > vmtape.bash", doc: "Save the script for bash" },
    {
      line: "completions fish > ~/.config/fish/completions/vmtape.fish",
      doc: "Let fish complete commands, options and names of policies",
    },
  ],
  async run(context, { operands: [shell = ""] }) {
    const generator = Object.hasOwn(SHELLS, shell) ? SHELLS[shell] : undefined;
    if (!generator) {
      throw new UsageError(
        `Unknown shell ${JSON.stringify(shell)}${didYouMean(shell, Object.keys(SHELLS))}`,
      );
    }
    const commands = await Promise.all(COMMANDS.map((entry) => entry.load()));
    const script = generator(commands);
    if (context.json) context.out.json({ shell, script });
    else context.out.text(script);
    return EXIT.ok;
  },
});
