# brig.bash - completion of brig for bash; `brig completion bash` prints it.
# SPDX-License-Identifier: Apache-2.0

_brig_options() {
	brig "$1" --help 2>/dev/null |
		sed -n 's/^  \(-.,\)\{0,1\} *\(--[a-z-]*\).*/\2/p'
}

_brig() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local cmd=${COMP_WORDS[1]} words=

	if [ "$COMP_CWORD" -eq 1 ]; then
		words=$(brig help 2>/dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p')
	elif [[ $cur == -* ]]; then
		words=$(_brig_options "$cmd")
	else
		case $cmd:$prev in
		exec:exec | rm:* | status:* | inspect:* | logs:*)
			words=$(brig ps -q 2>/dev/null)
			;;
		cp:*)
			compopt -o nospace -o default
			words=$(brig ps -q 2>/dev/null | sed 's/$/:/')
			;;
		host:host) words='start stop status ssh logs' ;;
		help:help)
			words=$(brig help 2>/dev/null |
				sed -n 's/^  \([a-z]*\) .*/\1/p')
			;;
		completion:completion) words=bash ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -o bashdefault -o default -F _brig brig
