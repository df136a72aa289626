# brig.bash - completion of brig for bash; `brig completion bash` prints it.
# SPDX-License-Identifier: Apache-2.0

# The commands of brig, or of one of its commands.
_brig_commands() {
	brig help "$@" 2>/dev/null |
		sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'
}

_brig_options() {
	brig "$@" --help 2>/dev/null |
		sed -n 's/^  \(-.,\)\{0,1\} *\(--[a-z-]*\).*/\2/p'
}

# What may stand behind a command, which can be two words, and the last word.
_brig_operands() {
	case $1:$2 in
	*:--template | template\ rm:*) brig template ls -q ;;
	*:--snapshot | snapshot\ rm:* | restore:* | rollback:sb_*)
		brig snapshot ls -q
		;;
	snapshot\ export:export) brig snapshot ls -q ;;
	exec:exec | rm:* | status:* | inspect:* | logs:* | rollback:rollback | \
		clone:* | pause:* | resume:* | reset:* | snapshot\ create:*)
		brig ps -q
		;;
	cp:*)
		compopt -o nospace -o default
		brig ps -q | sed 's/$/:/'
		;;
	host:host) echo start stop status ssh logs ;;
	help:help) _brig_commands ;;
	help:snapshot | help:template) _brig_commands "$2" ;;
	completion:completion) echo bash ;;
	esac 2>/dev/null
}

_brig() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local cmd=("${COMP_WORDS[1]}") words=

	case $COMP_CWORD:$cmd in
	1:*) words=$(_brig_commands) ;;
	2:snapshot | 2:template) words=$(_brig_commands "$cmd") ;;
	*:snapshot | *:template) cmd+=("${COMP_WORDS[2]}") ;;&
	*)
		if [[ $cur == -* ]]; then
			words=$(_brig_options "${cmd[@]}")
		else
			words=$(_brig_operands "${cmd[*]}" "$prev")
		fi
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -o bashdefault -o default -F _brig brig
