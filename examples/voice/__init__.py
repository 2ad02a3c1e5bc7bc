"""The services of one voice platform, each a module that runs as a process of its own.

    scarlett   hears users, asks the brain, has the answer spoken      arc-scarlett-voice
    sherlock   reasons, with similar earlier turns as context          arc-sherlock-brain
    piper      turns text into speech                                  arc-piper-tts
    pipeline   stores turns, sessions and the audit trail              arc-analytics-pipeline

`python -m voice.sherlock` in the folder above starts one, against brokers on localhost unless the
variables of `places` say otherwise. `voice_turn.py` starts all of them, brokers included.
Stand-ins, named so: the microphone (standard input), `reasoning`, `speech`. All else is real.
"""
